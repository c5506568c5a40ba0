"""An error that nobody thought of ends each command with one line and never with a traceback."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from controller.cli import contexts, login, main, session
from controller.cli.errors import Exit


def leaves(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command that does something, with its words."""
    for name, command in getattr(node, "commands", {}).items():
        words = (*above, name)
        yield from leaves(command, words) if hasattr(command, "commands") else [(words, command)]


def required(command: Any) -> Iterator[str]:
    """Words for all that the command cannot do without."""
    for parameter in command.params:
        if parameter.required:
            yield from (parameter.opts[0],) if parameter.param_type_name == "option" else ()
            yield "a=b"


COMMANDS = list(leaves(typer.main.get_command(main.app)))
# These ask no controller and read no file of a deployment.
OFFLINE = {"schema", "validate", "convert"}


def test_a_surprise_in_any_command_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def surprise(*_: object, **__: object) -> None:
        raise RuntimeError("surprise")

    for module, name in (
        (session, "session"), (session, "read_spec"), (session, "spec_path"), (login, "Client"),
        (contexts, "context_names"), (contexts, "_record"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, surprise)
    surprised = 0
    for words, command in COMMANDS:
        code = main.run([*words, *required(command)])
        said = capsys.readouterr().err
        assert "Traceback" not in said, words
        if said.startswith("internal error: RuntimeError: surprise"):
            assert code == Exit.FAILED, words
            surprised += 1
        else:
            # The words were not good enough to come so far.
            assert code == Exit.INVALID or words[0] in OFFLINE, (words, said)
    assert surprised > len(COMMANDS) * 2 // 3
