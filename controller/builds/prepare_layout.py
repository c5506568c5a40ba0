"""A virtual environment made in one place for another: paths, links and records as if it had been made there."""

import base64
import csv
import hashlib
import io
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.builds.debian.tree import Node, write_tar

VENV = "/opt/venv"
# How installers write the first line of a program when the path is too long for the kernel.
LONG_SHEBANG = re.compile(rb"\A#!/bin/sh\n'''exec' [\"']?(\S+?/bin/python[0-9.]*)[\"']? \"\$0\" \"\$@\"\n' '''\n")


@dataclass(frozen=True)
class Interpreter:
    """The base's Python: the path by which it is found, its version, the program behind the links."""

    path: str
    version: str
    real: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def finish(venv: Path, interpreter: Interpreter) -> None:
    """Afterwards nothing in `venv` names the place where it was made, or the Python that made it. Blocks."""
    _rename_version(venv, interpreter.minor)
    _link_python(venv, interpreter)
    _rewrite_settings(venv / "pyvenv.cfg", interpreter)
    changed = dict(_rewrite_programs(venv))
    for record in venv.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        _rewrite_record(record, changed)


def write_venv(venv: Path, target: Path) -> None:
    """As an archive for the image's root: owned by root, without times. Blocks."""
    write_tar(target, _entries(venv))


def _rename_version(venv: Path, minor: str) -> None:
    for parent in (venv / "lib", venv / "include", venv / "include/site"):
        for folder in parent.glob("python3.*") if parent.is_dir() else ():
            if folder.name != f"python{minor}":
                folder.rename(parent / f"python{minor}")


def _link_python(venv: Path, interpreter: Interpreter) -> None:
    for path in (venv / "bin").glob("python*"):
        if re.fullmatch(r"python[0-9.]*", path.name):
            path.unlink()
    (venv / "bin/python").symlink_to(interpreter.path)
    for name in ("python3", f"python{interpreter.minor}"):
        (venv / "bin" / name).symlink_to("python")


def _rewrite_settings(path: Path, interpreter: Interpreter) -> None:
    known = {"home": posixpath.dirname(interpreter.path), "version_info": interpreter.version}
    lines = []
    for line in path.read_text().splitlines():
        name = line.partition("=")[0].strip()
        lines.append(f"{name} = {known[name]}\n" if name in known else f"{line}\n")
    _replace(path, "".join(lines).encode())


def _rewrite_programs(venv: Path) -> Iterator[tuple[str, bytes]]:
    """Name and new content of what was changed."""
    here = os.fsencode(venv)
    for path in (venv / "bin").iterdir():
        if path.is_symlink() or not path.is_file():
            continue
        before = path.read_bytes()
        content = LONG_SHEBANG.sub(rb"#!\1\n", before) if here in before else before
        content = content.replace(here, VENV.encode())
        if content != before:
            _replace(path, content)
            yield path.name, content


def _rewrite_record(record: Path, changed: dict[str, bytes]) -> None:
    """https://packaging.python.org/en/latest/specifications/recording-installed-packages/#the-record-file"""
    rows = list(csv.reader(io.StringIO(record.read_text(), newline="")))
    touched = False
    for row in rows:
        content = changed.get(row[0].rpartition("/")[2]) if row[0].startswith("../../../bin/") else None
        if content is not None and row[1]:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            row[1:] = [f"sha256={digest}", str(len(content))]
            touched = True
    if touched:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        _replace(record, text.getvalue().encode())


def _replace(path: Path, content: bytes) -> None:
    """In an inode of its own: the file may be a hard link into a cache."""
    mode = path.stat().st_mode & 0o7777
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def _entries(venv: Path) -> Iterator[tuple[str, Node]]:
    yield VENV, Node(kind=tarfile.DIRTYPE, mode=0o755)
    for path in sorted(venv.rglob("*"), key=lambda path: path.as_posix()):
        name = f"{VENV}/{path.relative_to(venv).as_posix()}"
        status = path.lstat()
        if path.is_symlink():
            yield name, Node(kind=tarfile.SYMTYPE, mode=0o777, link=str(path.readlink()))
        elif path.is_dir():
            yield name, Node(kind=tarfile.DIRTYPE, mode=0o755)
        elif path.is_file():
            yield name, Node(mode=0o755 if status.st_mode & 0o111 else 0o644, source=path, size=status.st_size)
