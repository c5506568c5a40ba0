"""Quoting for Containerfiles: whatever text goes in, the builder and the shell read back exactly this text.

The rules are those of https://docs.docker.com/reference/dockerfile/ as Podman's parser follows them.
"""

import json
import re
import shlex
from collections.abc import Sequence

from controller.spec.fields import (
    APK_PACKAGE,
    APT_PACKAGE,
    CONDA_CHANNEL,
    CONDA_PACKAGE,
    DNF_PACKAGE,
    ENV_NAME,
    INDEX_URL,
    PYPI_REQUIREMENT,
    SECRET_NAME,
    has_controls,
)
from controller.spec.image_names import IMAGE


class CannotQuote(ValueError):
    """A text that no quoting makes safe, such as one with a line break; the models refuse these before."""


def word(text: str) -> str:
    """One word of ENV, LABEL or WORKDIR, without expansion of variables."""
    _check_printable(text)
    return f'"{_escaped(text)}"'


def shell(text: str) -> str:
    """One word of the shell command of a RUN, always in quotes so that it never looks like an option or a comment."""
    _check_printable(text)
    quoted = shlex.quote(text)
    return quoted if quoted.startswith("'") else f"'{text}'"


def json_words(words: Sequence[str]) -> str:
    """The exec form of ENTRYPOINT or RUN, in which nothing is expanded."""
    for text in words:
        _check_printable(text)
    return json.dumps(list(words))


def json_paths(paths: Sequence[str]) -> str:
    """The JSON form of VOLUME, in whose words variables and quotes are expanded after the JSON was read, and blanks
    dropped around them."""
    for text in paths:
        _check_printable(text)
        if text != text.strip():
            raise CannotQuote(f"{text!r} begins or ends with a blank")
    return json.dumps([_escaped(text).replace("'", "\\'") for text in paths])


def env_name(text: str) -> str:
    return _matching(ENV_NAME, text, "name of an environment variable")


def base_name(text: str) -> str:
    return _matching(IMAGE, text, "name of an image")


def secret_name(text: str) -> str:
    return _matching(SECRET_NAME, text, "name of a secret")


def apt_package(text: str) -> str:
    """A package name; without the ending "-", by which apt means removal, and "+", by which it means installing."""
    return _package_name(APT_PACKAGE, text, "apt")


def dnf_package(text: str) -> str:
    return _package_name(DNF_PACKAGE, text, "dnf")


def apk_package(text: str) -> str:
    return _package_name(APK_PACKAGE, text, "apk")


def conda_package(text: str) -> str:
    return _package_name(CONDA_PACKAGE, text, "conda")


def conda_channel(text: str) -> str:
    return _matching(CONDA_CHANNEL, text, "name of a conda channel")


def conda_script(text: str) -> str:
    return _matching(r"[A-Za-z0-9_.+!-]+ [A-Za-z0-9_.+!-]+ [0-9]+", text, "line of a conda package with a script")


def pypi_requirement(text: str) -> str:
    return _matching(PYPI_REQUIREMENT, text, "requirement of a Python package")


def index_url(text: str) -> str:
    return _matching(INDEX_URL, text, "address of a package index")


def _package_name(pattern: str, text: str, manager: str) -> str:
    if text.endswith("-"):
        raise CannotQuote(f"{text!r} is not the name of a package of {manager}: it ends in '-'")
    return _matching(pattern, text, f"name of a package of {manager}")


def _matching(pattern: str, text: str, what: str) -> str:
    if not re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text):
        raise CannotQuote(f"{text!r} is not the {what}")
    return text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


def _check_printable(text: str) -> None:
    if has_controls(text.replace("\t", "")):
        raise CannotQuote(f"{text!r} has control characters or line breaks")
