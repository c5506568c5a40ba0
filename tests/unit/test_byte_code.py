"""Byte code of packages, made by this machine's Pythons."""

import asyncio
import marshal
import os
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

from controller.builds.byte_code import compile_packages

MODULE = "def known(word):\n    return word in {'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'}\n"
# Wherever the program looks for modules, it is run when the program starts.
NOTED = "import os, sys; open(os.environ['NOTED'], 'a').write(str(hash('a')) + chr(10))\n"


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python that notes the hash of a word whenever it starts."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "noted.pth").write_text(NOTED)
    return str(tmp_path / "venv/bin/python")


def compiled(python: str, folder: Path, noted: Path) -> bytes:
    packages = folder / "opt/venv/site-packages"
    packages.mkdir(parents=True)
    (packages / "words.py").write_text(MODULE)
    asyncio.run(compile_packages(python, packages, folder, {"NOTED": str(noted), "PATH": os.environ["PATH"]}))
    (made,) = (packages / "__pycache__").glob("words.*.pyc")
    return made.read_bytes()


def test_byte_code_is_the_same_each_time_and_names_the_place_in_the_image(tmp_path: Path, python: str) -> None:
    first, second = [compiled(python, tmp_path / name, tmp_path / "noted") for name in ("one", "two")]
    assert first == second
    code = marshal.loads(first[16:])
    assert isinstance(code, CodeType)
    assert code.co_filename == "/opt/venv/site-packages/words.py"
    # What Pythons before 3.11 write follows from it.
    assert len(set((tmp_path / "noted").read_text().split())) == 1


def test_no_module_of_the_current_folder_is_taken(tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compileall.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    assert compiled(python, tmp_path / "one", tmp_path / "noted")
