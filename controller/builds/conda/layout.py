"""A conda environment from unpacked packages, as entries of an archive: what conda's own installers would make of them
in /opt/conda.

https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html. The packages are anybody's: nothing is
written but below `scratch`, and nothing is read but regular files of the packages.
"""

import contextlib
import itertools
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.builds.conda.model import Package
from controller.builds.debian.tree import Node

PREFIX = "/opt/conda"
NAME = re.compile(r"[A-Za-z0-9_.+!-]+")
ENTRY_POINT = re.compile(r"([A-Za-z0-9_.-]+)\s*=\s*([A-Za-z0-9_.]+)\s*:\s*([A-Za-z0-9_.]+)\s*(\[.*\])?\s*")
# What conda-build put in the place of the environment's folder before it could be chosen: conda, "PREFIX_PLACEHOLDER".
OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
SITE_PACKAGES = re.compile(r"lib/python3\.\d+t?/site-packages")
# As other installers write it.
PROGRAM = """\
#!{prefix}/bin/python{minor}
# -*- coding: utf-8 -*-
import re
import sys

from {module} import {imported}

if __name__ == '__main__':
\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
\tsys.exit({function}())
"""


class Unusable(Exception):
    """A package that cannot be laid out; the text names it and says why."""


@dataclass(frozen=True)
class Python:
    """Of the environment. `minor`: "3.11"; `packages`: its folder for modules, below the environment."""

    minor: str
    packages: str

    @staticmethod
    def of(packages: Sequence[Package]) -> "Python | None":
        found = next((one for one in packages if one.name == "python"), None)
        if found is None:
            return None
        minor = re.match(r"3\.\d+", str(found.record["version"]))
        if minor is None:
            raise Unusable(f"{found.identity}: the version of Python is not understood")
        folder = found.record.get("python_site_packages_path") or f"lib/python{minor[0]}/site-packages"
        if not SITE_PACKAGES.fullmatch(folder):
            raise Unusable(f"{found.identity}: {folder} is no folder for modules")
        return Python(minor[0], folder)


@dataclass(frozen=True)
class Environment:
    """`entries` by absolute path. `scripts`: name, version and build number of packages whose own script has to run
    when all is there. `modules`: paths of modules that come without byte code. `python`: None without one."""

    entries: Mapping[str, Node]
    scripts: tuple[str, ...]
    modules: tuple[str, ...]
    python: Python | None


def lay_out(packages: Sequence[Package], scratch: Path) -> Environment:
    """`scratch`: an empty folder, for files that are written anew. Blocks. Raises Unusable."""
    python = Python.of(packages)
    entries: dict[str, Node] = {f"{PREFIX}/conda-meta/history": Node()}
    scripts, modules = [], []
    for package in packages:
        record = f"{PREFIX}/conda-meta/{_checked(package)}.json"
        files = _Files(package, python, scratch)
        with _understood(package):
            own = dict(files.entries())
        entries.update(own)
        entries[record] = files.record(own)
        if f"{PREFIX}/bin/.{package.name}-post-link.sh" in own:
            scripts.append(f"{package.name} {package.record['version']} {package.record['build_number']}")
        if files.kind == "python":
            modules += [path for path in own if path.endswith(".py") and "/site-packages/" in path]
    _add_folders(entries)
    return Environment(dict(sorted(entries.items())), tuple(scripts), tuple(sorted(modules)), python)


def _checked(package: Package) -> str:
    if not NAME.fullmatch(package.identity):
        raise Unusable(f"{package.identity!r} is no name of a package")
    return package.identity


@contextlib.contextmanager
def _understood(package: Package) -> Iterator[None]:
    """What a package says of itself may be anything. Raises Unusable for what is no description at all."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unusable(f"{package.identity} describes itself by what is not understood: {error!r}") from error


def _add_folders(entries: dict[str, Node]) -> None:
    for path in tuple(entries):
        above = path.rpartition("/")[0]
        while above.startswith(PREFIX) and above not in entries:
            entries[above] = Node(kind=tarfile.DIRTYPE, mode=0o755)
            above = above.rpartition("/")[0]
        if above in entries and entries[above].kind == tarfile.REGTYPE:
            raise Unusable(f"{path} lies below {above}, which is a file of another package")


class _Files:
    """Those of one package, where they are in the environment. `kind`: "python", "generic", or "" for one platform."""

    def __init__(self, package: Package, python: Python | None, scratch: Path) -> None:
        self._package = package
        self._python = python
        self._scratch = scratch
        self._folder = package.folder.resolve()
        self._numbers = itertools.count()
        self.kind = str(package.record.get("noarch") or "")

    def entries(self) -> Iterator[tuple[str, Node]]:
        for entry in self._paths():
            path = str(entry["_path"])
            yield f"{PREFIX}/{self._place(path)}", self._node(path, entry)
        if self.kind == "python":
            yield from self._programs()

    def record(self, own: Mapping[str, Node]) -> Node:
        """What installers of conda find about the package. Without places and times of this machine."""
        names = [path.removeprefix(f"{PREFIX}/") for path in own]
        paths = [{"_path": name, "path_type": "hardlink"} for name in names]
        known = {**self._package.record, "files": names, "paths_data": {"paths_version": 1, "paths": paths}}
        content = json.dumps(known, indent=2, sort_keys=True).encode()
        return Node(content=content, size=len(content))

    def _paths(self) -> list[dict[str, Any]]:
        """As in paths.json, which packages of before 2017 have not."""
        if text := self._about("paths.json"):
            return list(self._parsed(text).get("paths") or ())
        replaced = {}
        for line in filter(str.strip, self._about("has_prefix").splitlines()):
            words = line.split(maxsplit=2)
            # The oldest name the path alone.
            known = len(words) == len(("placeholder", "mode", "path")) and words[1] in ("text", "binary")
            placeholder, mode, path = words if known else (OLD_PLACEHOLDER, "text", line.strip())
            replaced[path.strip('"')] = {"prefix_placeholder": placeholder.strip('"'), "file_mode": mode}
        return [{"_path": path, **replaced.get(path, {})} for path in self._about("files").splitlines() if path]

    def _about(self, name: str) -> str:
        return self._regular(f"info/{name}").read_text() if (self._folder / "info" / name).is_file() else ""

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Unusable(f"{self._package.identity} describes itself by what is no JSON: {error}") from error
        return dict(found) if isinstance(found, dict) else {}

    def _place(self, path: str) -> str:
        """Below the environment."""
        if self.kind == "python":
            if path.startswith("site-packages/"):
                path = f"{self._require_python().packages}/{path.removeprefix('site-packages/')}"
            elif path.startswith("python-scripts/"):
                path = f"bin/{path.removeprefix('python-scripts/')}"
        if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
            raise Unusable(f"{self._package.identity}: {path!r} is not a path below the environment")
        return path

    def _node(self, path: str, entry: Mapping[str, Any]) -> Node:
        file = self._inside(path)
        if file.is_symlink():
            return Node(kind=tarfile.SYMTYPE, mode=0o777, link=str(file.readlink()))
        if file.is_dir() and entry.get("path_type") == "directory":
            return Node(kind=tarfile.DIRTYPE, mode=0o755)
        status = self._regular(path).stat()
        mode = 0o755 if status.st_mode & 0o111 else 0o644
        if not (placeholder := str(entry.get("prefix_placeholder") or "")):
            return Node(mode=mode, source=file, size=status.st_size)
        content = _settled(file.read_bytes(), placeholder.encode(), entry.get("file_mode") == "binary")
        written = self._scratch / f"{self._package.identity}-{next(self._numbers)}"
        written.write_bytes(content)
        return Node(mode=mode, source=written, size=len(content))

    def _regular(self, path: str) -> Path:
        """A link could lead to a file of this machine."""
        file = self._inside(path)
        if file.is_symlink() or not file.is_file():
            raise Unusable(f"{self._package.identity}: {path} is no file of the package")
        return file

    def _inside(self, path: str) -> Path:
        file = self._folder / path
        if not file.parent.resolve().is_relative_to(self._folder):
            raise Unusable(f"{self._package.identity}: {path} lies outside of the package")
        return file

    def _programs(self) -> Iterator[tuple[str, Node]]:
        noarch = self._parsed(self._about("link.json") or "{}").get("noarch") or {}
        for line in noarch.get("entry_points") or ():
            if (found := ENTRY_POINT.fullmatch(line.strip())) is None:
                raise Unusable(f"{self._package.identity}: {line!r} is no program")
            name, module, function = found[1], found[2], found[3]
            text = PROGRAM.format(
                prefix=PREFIX, minor=self._require_python().minor, module=module, function=function,
                imported=function.partition(".")[0],
            )  # fmt: skip
            yield f"{PREFIX}/{self._place(f'bin/{name}')}", Node(mode=0o755, content=text.encode(), size=len(text))

    def _require_python(self) -> Python:
        if self._python is None:
            raise Unusable(f"{self._package.identity} has modules of Python, and nothing needs a Python")
        return self._python


def _settled(content: bytes, placeholder: bytes, binary: bool) -> bytes:
    """With the environment's folder in the placeholder's place. In a binary what follows keeps its place: the rest of a
    text is moved up, and zeros fill what becomes free."""
    if not binary:
        return content.replace(placeholder, PREFIX.encode())
    if len(placeholder) < len(PREFIX):
        raise Unusable(f"the placeholder {placeholder.decode(errors='replace')} is shorter than {PREFIX}")

    def moved_up(found: re.Match[bytes]) -> bytes:
        text = found[0].replace(placeholder, PREFIX.encode())
        return text.ljust(len(found[0]), b"\0")

    return re.sub(re.escape(placeholder) + rb"[^\0]*\0", moved_up, content)
