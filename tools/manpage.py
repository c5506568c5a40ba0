"""Writes docs/longshore.1, the manual page of the command, from the command's own tree."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from controller.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "longshore.1"
HEAD = """\
.TH LONGSHORE 1 "" "Longshore" "User commands"
.SH NAME
longshore \\- build trained models and run them on edge devices
.SH SYNOPSIS
.B longshore
.I COMMAND
[\\fIOPTIONS\\fR]
"""


def escaped(text: str) -> str:
    """Text as troff takes it: no line of it is a request."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


def paragraphs(text: str) -> Iterator[str]:
    """The help of a command; its examples stand as they are."""
    for part in inspect.cleandoc(text).split("\n\n"):
        example = part.startswith("  ")
        yield ".PP"
        if example:
            yield ".RS\n.nf"
        yield from (escaped(line.strip()) for line in part.splitlines())
        if example:
            yield ".fi\n.RE"


def options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        # Completion's own help is typer's, and is worded as its version likes.
        if getattr(parameter, "hidden", False) or parameter.name.endswith("_completion"):
            continue
        if parameter.param_type_name == "option":
            names = ", ".join((*parameter.opts, *parameter.secondary_opts))
        else:
            names = parameter.metavar or parameter.name.upper()
        yield f".TP\n\\fB{escaped(names)}\\fR\n{escaped(' '.join((parameter.help or '').split()))}"


def sections(node: Any, words: tuple[str, ...]) -> Iterator[str]:
    """One for each command, in the order of the help."""
    for name, command in node.commands.items():
        if command.hidden:
            continue
        here = (*words, name)
        default = getattr(command, "commands", {}).get(getattr(command, "default", ""))
        shown = default or command
        yield f".SS {escaped(' '.join(here))}"
        yield from paragraphs(shown.help or "")
        yield from options(shown)
        yield from sections(command, here) if hasattr(command, "commands") else ()


def page() -> str:
    root = typer.main.get_command(main.app)
    description = [".SH DESCRIPTION", *paragraphs(root.help or "")]
    body = [*description, ".SH OPTIONS", *options(root), ".SH COMMANDS", *sections(root, ("longshore",))]
    return HEAD + "\n".join(body) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
