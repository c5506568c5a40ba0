"""The manual page says what the commands say, in a form that is shown without complaint."""

import shutil
import subprocess

import pytest
import typer.main

from controller.cli import main
from tests.unit.test_cli_errors import commands
from tools.manpage import PAGE, escaped, page


def test_the_manual_page_is_fresh_and_names_every_command() -> None:
    text = PAGE.read_text()
    assert text == page(), "run: .venv/bin/python -m tools.manpage"
    for words in commands(typer.main.get_command(main.app)):
        assert f"\n.SS longshore {escaped(' '.join(words))}\n" in text


def test_text_is_never_taken_for_a_request() -> None:
    assert escaped(".TH x") == "\\&.TH x"
    assert escaped("a\\b --c") == "a\\eb \\-\\-c"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_the_manual_page_is_formatted_without_a_complaint() -> None:
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", PAGE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "longshore deployments undo digits --to 3" in done.stdout.replace("\N{MINUS SIGN}", "-")
