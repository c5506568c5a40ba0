"""Commands before the entrypoint: run by a real shell, which reads nothing in their words."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.spec.launching import LONGEST_SCRIPT, CannotLaunch, launch_words

NASTY = ["a b", '"', "'", "$HOME", "`id`", "$(id)", "\\", "*", ";", "#", "", "-n", "if", "A=1", "é\t"]
characters = st.one_of(st.sampled_from("'\"$\\`;&|*?#!= \t()"), st.characters(exclude_categories=("Cc", "Cs")))
words = st.lists(st.text(characters, max_size=9), min_size=1, max_size=4)


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A program that writes its arguments, NUL after each, to the file `said`."""
    program = tmp_path / "record it"
    program.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> {tmp_path}/said; printf '\\n' >> {tmp_path}/said\n")
    program.chmod(0o755)
    return program


def said(recorder: Path) -> list[list[str]]:
    lines = (recorder.parent / "said").read_text().split("\n")
    return [line.split("\0")[:-1] for line in lines[:-1]]


def test_without_commands_the_entrypoint_is_executed_as_it_is() -> None:
    assert launch_words([], ["python", "serve.py"]) == ("python", "serve.py")
    assert launch_words([], []) == ()


def test_commands_run_in_their_order_and_the_entrypoint_takes_the_shells_place(recorder: Path) -> None:
    commands = [[str(recorder), "one", *NASTY], [str(recorder), "two"]]
    launched = launch_words(commands, [str(recorder), "entry", *NASTY])
    process = subprocess.Popen(launched)
    assert process.wait() == 0
    assert said(recorder) == [["one", *NASTY], ["two"], ["entry", *NASTY]]


def test_a_command_that_fails_ends_it_with_its_status(recorder: Path) -> None:
    launched = launch_words([["sh", "-c", "exit 7"], [str(recorder), "two"]], [str(recorder), "entry"])
    assert subprocess.run(launched, check=False).returncode == 7
    assert not (recorder.parent / "said").exists()


def test_the_entrypoint_is_the_process_that_gets_signals() -> None:
    launched = launch_words([["true"]], ["sh", "-c", "echo $$"])
    process = subprocess.Popen(launched, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate()
    assert int(out) == process.pid


@given(st.lists(words, min_size=1, max_size=3), words)
@settings(max_examples=25, deadline=None)
def test_words_come_through_as_they_are(commands: list[list[str]], entrypoint: list[str]) -> None:
    show = ["printf", "%s\\0"]
    launched = launch_words([[*show, *command] for command in commands], [*show, *entrypoint])
    out = subprocess.run(launched, check=True, capture_output=True, text=True).stdout
    assert out.split("\0")[:-1] == [word for command in commands for word in command] + entrypoint


def test_commands_without_an_entrypoint_are_refused() -> None:
    with pytest.raises(CannotLaunch, match="entrypoint"):
        launch_words([["true"]], [])


def test_more_than_a_shell_takes_is_refused() -> None:
    with pytest.raises(CannotLaunch, match="put the commands into a file"):
        launch_words([["x" * LONGEST_SCRIPT]], ["serve"])
