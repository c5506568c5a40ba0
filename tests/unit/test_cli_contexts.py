"""Contexts for several controllers, on a folder of a test's own."""

import json
from pathlib import Path

import pytest

from controller.cli import main
from controller.cli.context import Context, context_path, save_context, use_context
from controller.cli.errors import Exit, UsageProblem


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LONGSHORE_CONTEXT", raising=False)
    for name in ("default", "lab"):
        save_context(context_path(name), Context(f"{name}.example:7443", f"secret of {name}"))
    return tmp_path / "longshore"


def test_a_context_is_a_name_or_a_file_and_the_one_in_use_where_nothing_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert context_path(None) == folder / "context.yaml"
    use_context("lab")
    assert context_path(None) == folder / "contexts" / "lab.yaml"
    monkeypatch.setenv("LONGSHORE_CONTEXT", "default")
    assert context_path(None) == folder / "context.yaml"
    assert context_path("lab") == folder / "contexts" / "lab.yaml"
    assert context_path("./lab") == Path("./lab")
    assert context_path("lab.yml") == Path("lab.yml")
    with pytest.raises(UsageProblem, match="no name of a context"):
        context_path("..")


def test_contexts_are_listed_chosen_and_forgotten(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main.run(["context", "use", "lab"]) == Exit.OK
    assert main.run(["context", "list"]) == Exit.OK
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["default", "default.example:7443", "-", "-"],
        ["*", "lab", "lab.example:7443", "-", "-"],
    ]
    assert "secret" not in shown
    assert main.run(["context", "current", "-o", "json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["file"] == str(folder / "contexts" / "lab.yaml")
    assert main.run(["context", "delete", "lab"]) == Exit.OK
    assert main.run(["context", "list", "-o", "name"]) == Exit.OK
    assert capsys.readouterr().out.splitlines()[-1] == "default"
    assert main.run(["context", "use", "nosuch"]) == Exit.INVALID
    assert "no context nosuch; there are: default" in capsys.readouterr().err
