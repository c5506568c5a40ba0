"""Where a base's apt takes packages from: sources.list(5) in both forms, read by a grammar that is stricter than apt's.

apt takes the scheme of an address for the name of a program, and the rest of it for paths. So the sources of a base,
which are anybody's, are never handed on: what is understood is written anew, and the whole is refused where anything
is not.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

FOLDER = "/etc/apt/sources.list.d/"
MAIN = "/etc/apt/sources.list"
KINDS = ("deb", "deb-src")
ADDRESS = re.compile(
    r"https?://([A-Za-z0-9._~%+-]+(:[A-Za-z0-9._~%+-]*)?@)?[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9._~%+-]*)*"
)
WORD = re.compile(r"[A-Za-z0-9.][A-Za-z0-9._~+-]*(/[A-Za-z0-9._~+-]*)*")
ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*")
KEY = re.compile(r"/(etc/apt|usr/share)/keyrings/[A-Za-z0-9._+-]+|/etc/apt/trusted\.gpg\.d/[A-Za-z0-9._+-]+")
YES_OR_NO = re.compile("yes|no")
# Names are those of one-line entries; in the other form "arch" is called "Architectures".
OPTIONS = {"arch": ARCHITECTURE, "signed-by": KEY, "trusted": YES_OR_NO, "check-valid-until": YES_OR_NO}
LONG_NAMES = {"architectures": "arch", **{name: name for name in OPTIONS if name != "arch"}}
ONE_LINE = re.compile(r"(deb|deb-src)[ \t]+(?:\[([^\[\]]*)\][ \t]+)?(\S+)[ \t]+(\S+)((?:[ \t]+\S+)*)")
FIELD = re.compile(r"([A-Za-z][A-Za-z-]*):(.*)")


class NotUnderstood(Exception):
    """Something of it is in no form that is known to be harmless."""


@dataclass(frozen=True)
class Source:
    """One entry. `options`: values by the names of the one-line form."""

    kind: str
    address: str
    suite: str
    components: tuple[str, ...] = ()
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def line(self, key: Callable[[str], str]) -> str:
        """In the one-line form; `key` gives the path that stands for a key file's."""
        shown = [
            f"{name}={','.join(map(key, values) if name == 'signed-by' else values)}" for name, values in self.options
        ]
        return " ".join(
            (self.kind, *((f"[{' '.join(shown)}]",) if shown else ()), self.address, self.suite, *self.components)
        )


def sources_in(texts: Mapping[str, bytes]) -> list[Source]:
    """All entries of the files that apt would read, by absolute path. Raises NotUnderstood."""
    found: list[Source] = []
    for path, content in sorted(texts.items()):
        if path == MAIN or (path.startswith(FOLDER) and path.endswith(".list")):
            found += _one_line_entries(_lines(content))
        elif path.startswith(FOLDER) and path.endswith(".sources"):
            found += _paragraphs(_lines(content))
    return found


def _lines(content: bytes) -> list[str]:
    """Non-ASCII text stays only in comments: no grammar below has it."""
    return content.decode(errors="replace").replace("\r\n", "\n").split("\n")


def _one_line_entries(lines: list[str]) -> Iterator[Source]:
    for line in lines:
        entry = line.partition("#")[0].strip(" \t")
        if entry:
            match = ONE_LINE.fullmatch(entry)
            if match is None:
                raise NotUnderstood
            pairs = [option.partition("=")[::2] for option in (match[2] or "").split()]
            options = {name: tuple(value.split(",")) for name, value in pairs}
            if len(options) != len(pairs):
                raise NotUnderstood
            yield _checked(Source(match[1], match[3], match[4], tuple(match[5].split()), tuple(options.items())))


def _paragraphs(lines: list[str]) -> Iterator[Source]:
    fields: dict[str, str] = {}
    last = ""
    for line in [*(line for line in lines if not line.startswith("#")), ""]:
        match = FIELD.fullmatch(line)
        if not line.strip(" \t"):
            yield from _of_fields(fields)
            fields = {}
        elif line[0] in " \t" and fields:
            fields[last] += f" {line}"
        elif match and match[1].lower() not in fields:
            last = match[1].lower()
            fields[last] = match[2]
        else:
            raise NotUnderstood


def _of_fields(fields: Mapping[str, str]) -> Iterator[Source]:
    values = {name: tuple(value.split()) for name, value in fields.items()}
    enabled = values.pop("enabled", ("yes",))
    if enabled not in (("yes",), ("no",)):
        raise NotUnderstood
    if not values or enabled == ("no",):
        return
    kinds, addresses, suites = (values.pop(name, ()) for name in ("types", "uris", "suites"))
    components = values.pop("components", ())
    if not kinds or not addresses or not suites or not set(values) <= set(LONG_NAMES):
        raise NotUnderstood
    options = tuple((LONG_NAMES[name], value) for name, value in values.items())
    for kind, address, suite in itertools.product(kinds, addresses, suites):
        yield _checked(Source(kind, address, suite, components, options))


def _checked(source: Source) -> Source:
    words = (source.suite, *source.components)
    sound = (
        source.kind in KINDS
        and ADDRESS.fullmatch(source.address)
        and all(WORD.fullmatch(word) and ".." not in word for word in words)
        and all(_allowed(name, values) for name, values in source.options)
    )
    if not sound:
        raise NotUnderstood
    return source


def _allowed(name: str, values: tuple[str, ...]) -> bool:
    return name in OPTIONS and bool(values) and all(OPTIONS[name].fullmatch(value) for value in values)
