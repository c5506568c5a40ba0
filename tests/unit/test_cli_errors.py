"""How `longshore` ends: exit codes, lines on stderr, never a traceback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from controller.cli import main, session
from controller.cli.context import Context, load_context, save_context
from controller.cli.device_steering import label_changes, pairs
from controller.cli.errors import Exit, InvalidFile, UsageProblem, exit_code, explain
from controller.errors import InvalidSpec
from controller.errors import Problem as SpecProblem
from longshore import outcome
from longshore.failures import Failed, LongshoreError, Problem, WaitTimeout
from longshore.v1 import build_pb2


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The person's own settings play no part."""
    for name in ("LONGSHORE_CONTEXT", "LONGSHORE_USER", "LONGSHORE_PROJECT", "LONGSHORE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


REFUSAL = InvalidFile(
    Path("d.yml"), InvalidSpec([SpecProblem("build.base", 3, 9, "no image"), SpecProblem("", 0, 0, "x")])
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("BuildFailed", "m"), Exit.FAILED),
        (LongshoreError("NO_SUCH_DEPLOYMENT", "m", code="NOT_FOUND"), Exit.FAILED),
        (LongshoreError("INVALID_SPEC", "m", code="INVALID_ARGUMENT"), Exit.INVALID),
        (LongshoreError("FILES_UNUSABLE", "m", (Problem("a", 0, 0, "b"),)), Exit.INVALID),
        (UsageProblem("m"), Exit.INVALID),
        (REFUSAL, Exit.INVALID),
        (WaitTimeout("m"), Exit.TIMEOUT),
        (LongshoreError("DEADLINE_EXCEEDED", "m", code="DEADLINE_EXCEEDED"), Exit.TIMEOUT),
        (LongshoreError("UNAVAILABLE", "m", code="UNAVAILABLE"), Exit.NO_ACCESS),
        (LongshoreError("DEVICE_UNREACHABLE", "m", code="UNAVAILABLE"), Exit.FAILED),
        (LongshoreError("BAD_CREDENTIALS", "m", code="UNAUTHENTICATED"), Exit.NO_ACCESS),
        (LongshoreError("NOT_ALLOWED", "m", code="PERMISSION_DENIED"), Exit.NO_ACCESS),
    ],
)
def test_exit_code_tells_what_kind_of_trouble_it_was(error: Exception, code: Exit) -> None:
    assert exit_code(error) == code


def test_problems_of_a_file_are_told_as_editors_link_them() -> None:
    assert explain(REFUSAL) == ["d.yml:3:9: build.base: no image", "d.yml: x"]


def test_failure_is_told_with_its_last_lines() -> None:
    assert explain(Failed("CrashLoop", "on edge: exited with 3", ("boom",))) == [
        "failed: CrashLoop: on edge: exited with 3",
        "  | boom",
    ]


def test_call_that_failed_is_told_with_what_to_do() -> None:
    unreachable = LongshoreError("UNAVAILABLE", "refused", code="UNAVAILABLE")
    assert explain(unreachable, "host:1") == ["error: cannot reach the controller at host:1: refused"]
    refused = LongshoreError("BAD_CREDENTIALS", "unknown token", code="UNAUTHENTICATED")
    assert "longshore login" in explain(refused)[0]
    files = LongshoreError("FILES_UNUSABLE", "m", (Problem("a.py", 0, 0, "no such file"),))
    assert explain(files) == ["error: m", "  a.py: no such file"]


def test_failed_build_tells_step_reason_and_output() -> None:
    good = build_pb2.BuildTarget(profile="arm64-cpu", state=build_pb2.BUILD_STATE_SUCCEEDED)
    bad = build_pb2.BuildTarget(
        profile="x86-cpu",
        state=build_pb2.BUILD_STATE_FAILED,
        reason="PackageNotFound",
        message="no package nosuch",
        failed_step="RUN pip install nosuch",
        last_lines=["ERROR: nosuch"],
    )
    failed = outcome.built(build_pb2.Build(id="b1", state=build_pb2.BUILD_STATE_FAILED, targets=[good, bad]))
    assert failed == outcome.Outcome(
        False,
        "PackageNotFound",
        "build b1 for x86-cpu: no package nosuch (in: RUN pip install nosuch)",
        ("ERROR: nosuch",),
    )


def test_unknown_options_and_commands_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["deploy", "--nope"]) == Exit.INVALID
    assert main.run(["nosuch"]) == Exit.INVALID
    assert "Traceback" not in capsys.readouterr().err


def commands(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that help shows."""
    for name, command in node.commands.items():
        if not command.hidden:
            yield (*above, name)
            yield from commands(command, (*above, name)) if hasattr(command, "commands") else ()


def test_help_of_every_command_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    names = list(commands(typer.main.get_command(main.app)))
    assert {("build",), ("build", "cancel"), ("build", "logs"), ("build", "render"), ("images",)} <= set(names)
    for name in names:
        assert main.run([*name, "--help"]) == Exit.OK
        assert f"longshore {' '.join(name)}" in capsys.readouterr().out.partition("Examples:")[2]


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith("longshore ")


def test_missing_context_is_told_with_the_command_that_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["deployments"]) == Exit.INVALID
    assert "longshore login --address" in capsys.readouterr().err


def test_invalid_file_is_refused_before_anything_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deployment.yml"
    file.write_text("version: 1\nname: Digits\n")
    assert main.run(["deploy", "-f", str(file), "--wait"]) == Exit.INVALID
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{file}:1:1: targets: required, and missing")
    assert any(line.startswith(f"{file}:2:7: name: 'Digits' is not allowed") for line in lines)


def test_missing_file_is_told_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["build", "-f", "/no/such/file.yml"]) == Exit.INVALID
    assert capsys.readouterr().err == "error: cannot read /no/such/file.yml: No such file or directory\n"


def test_unexpected_error_is_one_line_and_a_traceback_only_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(session, "read_spec", broken)
    assert main.run(["deploy"]) == Exit.FAILED
    quiet = capsys.readouterr().err
    assert quiet.startswith("internal error: RuntimeError: surprise")
    assert "Traceback" not in quiet
    monkeypatch.setenv("LONGSHORE_DEBUG", "1")
    assert main.run(["deploy"]) == Exit.FAILED
    assert "Traceback" in capsys.readouterr().err


def test_stored_context_is_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "context.yaml"
    context = Context("host:7443", "secret", "-----BEGIN CERTIFICATE-----\nx\n", user="alice")
    save_context(path, context)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_context(path) == context
    assert [entry.name for entry in path.parent.iterdir()] == ["context.yaml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing: address, token"),
        ("[1]", "missing: address, token"),
        ("address: a\ntoken: 5\n", "not allowed or not text: token"),
        ("address: a\ntoken: b\ncolour: red\n", "not allowed or not text: colour"),
        ("a: [", "is no YAML"),
    ],
)
def test_context_that_is_no_context_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "context.yaml"
    path.write_text(text)
    with pytest.raises(UsageProblem, match=said):
        load_context(path)


@pytest.mark.parametrize(("text", "value"), [("", None), ("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("500ms", 0.5)])
def test_durations_are_read(text: str, value: float | None) -> None:
    assert session.seconds(text) == value


@pytest.mark.parametrize("text", ["soon", "-1s", "10 m", "9999h"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageProblem, match="no duration"):
        session.seconds(text)


def test_labels_are_pairs() -> None:
    assert pairs(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    assert label_changes(["a=1", "b-", "c=x-"]) == ({"a": "1", "c": "x-"}, ["b"])
    with pytest.raises(UsageProblem, match="expected key=value"):
        pairs(["a"])
