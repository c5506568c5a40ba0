"""Secrets in text that people will read: hidden in every form in which programs print them."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from controller.builds.model import BuildFailed
from controller.builds.progress_lines import readable

HIDDEN = "***"
# A shorter line of a secret with several lines says nothing ("}"), and would hide much that is none.
SHORTEST_LINE = 4
# Of a shorter secret, what is left of base64 inside a longer text would be found everywhere.
SHORTEST_INSIDE = 6
# Columns at which programs break base64: base64(1) and MIME, PEM.
WRAPS = (76, 64)
# The password in the address of an index or a proxy.
IN_ADDRESS = re.compile(r"(://[^\s/:@'\"]{0,200}:)[^\s/@'\"]{1,500}(?=@)")


class Mask:
    """Hides these secrets: as they are, each line of them, in base64 (also as a part of what was encoded), in
    hexadecimal, and as they look in an address or in JSON. Passwords in addresses are hidden always."""

    def __init__(self, secrets: Iterable[bytes | str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)} - {""}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self.longest = len(self._forms[0]) if self._forms else 0

    def __call__(self, text: str) -> str:
        for begin, end in reversed(self._found(text)):
            text = f"{text[:begin]}{HIDDEN}{text[end:]}"
        return IN_ADDRESS.sub(rf"\1{HIDDEN}", text) if "://" in text else text

    def safe_cut(self, text: str) -> int:
        """Up to where the beginning of a text can be masked by itself, whatever follows the text."""
        position = max(0, len(text) - max(self.longest - 1, 0))
        while position > 0 and (begin := self._crossing(text, position)) is not None:
            position = begin
        return position

    def failure(self, failure: BuildFailed) -> BuildFailed:
        """The same failure, without secrets."""
        return BuildFailed(
            failure.reason,
            self(failure.message),
            step=self(failure.step),
            last_lines=tuple(map(self, failure.last_lines)),
            retryable=failure.retryable,
        )

    def _found(self, text: str) -> list[tuple[int, int]]:
        """Where secrets stand; those that overlap are one, so that no part of either is left."""
        spans = sorted(span for form in self._forms if form in text for span in _occurrences(text, form))
        merged: list[tuple[int, int]] = []
        for begin, end in spans:
            if merged and begin < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def _crossing(self, text: str, position: int) -> int | None:
        """Where a secret begins that goes on behind this position."""
        for form in self._forms:
            begin = text.find(form, max(0, position - len(form) + 1), position + len(form) - 1)
            if begin != -1:
                return begin
        return None


def _occurrences(text: str, form: str) -> Iterator[tuple[int, int]]:
    begin = text.find(form)
    while begin != -1:
        yield begin, begin + len(form)
        begin = text.find(form, begin + 1)


def _forms(secret: bytes | str) -> Iterator[str]:
    raw = secret.encode(errors="surrogateescape") if isinstance(secret, str) else secret
    for content in {raw, raw.strip()} - {b""}:
        yield from _plain(content.decode(errors="replace"))
        yield content.hex() if len(content) >= SHORTEST_LINE else ""
        yield from _base64(content)
    for line in raw.decode(errors="replace").splitlines():
        if len(line.strip()) >= SHORTEST_LINE:
            yield from _plain(line.strip())


def _plain(text: str) -> Iterator[str]:
    """As lines show it, in addresses, in JSON."""
    yield from (readable(text), text.rstrip())
    for escaped in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield from (escaped, re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), escaped))
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])


def _base64(content: bytes) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(content).decode()
        yield from (whole, whole.rstrip("=") if len(content) >= SHORTEST_LINE else "")
        for width in WRAPS:
            lines = [whole[begin : begin + width] for begin in range(0, len(whole), width)]
            yield from (line for line in lines if len(line) > SHORTEST_INSIDE)
        if len(content) >= SHORTEST_INSIDE:
            yield from (_inside(encode(bytes(offset) + content).decode(), offset, len(content)) for offset in range(3))


def _inside(encoded: str, offset: int, size: int) -> str:
    """The characters that depend on nothing but the content, which stood behind `offset` other bytes."""
    return encoded[-(-offset * 8 // 6) : (offset + size) * 8 // 6]
