"""Quoting for Containerfiles: whatever text goes in, the builder and the shell read back exactly this text.

The rules are those of https://docs.docker.com/reference/dockerfile/ as Podman's parser follows them.
"""

import json
import re
import shlex
from collections.abc import Sequence

from controller.spec.model import APT_PACKAGE, ENV_NAME, IMAGE


class CannotQuote(ValueError):
    """A text that no quoting makes safe, such as one with a line break; the models refuse these before."""


def word(text: str) -> str:
    """One word of ENV, LABEL or WORKDIR, without expansion of variables."""
    _check_printable(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def shell(text: str) -> str:
    """One word of the shell command of a RUN, always in quotes so that it never looks like an option or a comment."""
    _check_printable(text)
    quoted = shlex.quote(text)
    return quoted if quoted.startswith("'") else f"'{text}'"


def json_words(words: Sequence[str]) -> str:
    """The exec form of ENTRYPOINT."""
    for text in words:
        _check_printable(text)
    return json.dumps(list(words))


def env_name(text: str) -> str:
    return _matching(ENV_NAME, text, "name of an environment variable")


def base_name(text: str) -> str:
    return _matching(IMAGE, text, "name of an image")


def apt_package(text: str) -> str:
    """A package name; without the ending "-", by which apt means removal."""
    if text.endswith("-"):
        raise CannotQuote(f"{text!r} is not the name of an apt package: it ends in '-'")
    return _matching(APT_PACKAGE, text, "name of an apt package")


def _matching(pattern: str, text: str, what: str) -> str:
    if not re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text):
        raise CannotQuote(f"{text!r} is not the {what}")
    return text


def _check_printable(text: str) -> None:
    # Also the line breaks of Unicode: parsers differ in what they take for one.
    if any((ord(c) < 32 and c != "\t") or c in "\x7f\x85\u2028\u2029" for c in text):
        raise CannotQuote(f"{text!r} has control characters or line breaks")
