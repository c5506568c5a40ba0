"""The files that a `deployment.yml` names: found, hashed, and described for the server."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from longshore.failures import LongshoreError, Problem
from longshore.v1 import types_pb2


@dataclass(frozen=True)
class Source:
    """One file: where it lies here, and what the server is told of it."""

    location: Path
    entry: types_pb2.FileEntry


def collect(folder: Path, names: Iterable[str], *, what: str = "build.files") -> list[Source]:
    """The files behind names relative to `folder`, folders as the files in them, each once, sorted by path.

    Links are followed while they stay below `folder`. Raises LongshoreError with every name that cannot be used:
    missing, outside of the folder, neither file nor folder, unreadable, or an empty folder. `what` they are for.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    root = folder.resolve()
    for name in names:
        try:
            path = _clean(name)
            below = dict(_walk(root, path, (root,) if path else ()))
            if not below:
                raise _Unusable(name, "the folder holds no files")
            found.update(below)
        except _Unusable as unusable:
            problems.append(Problem(unusable.path, 0, 0, str(unusable)))
    sources: list[Source] = []
    for path in sorted(found):
        try:
            sources.append(_source(path, found[path]))
        except OSError as error:
            problems.append(Problem(path, 0, 0, f"cannot be read: {error.strerror}"))
    if problems:
        listed = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
        raise LongshoreError("FILES_UNUSABLE", f"{what}: {listed}", tuple(problems))
    return sources


def archive_source(path: Path) -> Source:
    """An archive that is sent in place of the files in it. Raises LongshoreError where it cannot be read."""
    try:
        return _source(path.name, path)
    except OSError as error:
        raise LongshoreError("FILES_UNUSABLE", f"cannot read {path}: {error.strerror}") from error


class _Unusable(Exception):
    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def _clean(name: str) -> str:
    """The name without `.` and `//`."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise _Unusable(name, "lies outside of the folder of the deployment.yml")
    return "/".join(parts)


def _walk(root: Path, path: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    try:
        real = (root / path).resolve(strict=True)
        mode = real.stat().st_mode
    except RuntimeError as error:
        raise _Unusable(path, "a link that leads to itself") from error
    except OSError as error:
        raise _Unusable(path, f"no such file or folder below {root}") from error
    if not real.is_relative_to(root):
        raise _Unusable(path, f"a link that leads out of the folder, to {real}")
    if stat.S_ISREG(mode):
        yield path, real
    elif not stat.S_ISDIR(mode):
        raise _Unusable(path, "neither a file nor a folder")
    elif real in above:
        raise _Unusable(path, "a link that leads to a folder above itself")
    else:
        for name in _listed(real, path):
            yield from _walk(root, f"{path}/{name}" if path else name, (*above, real))


def _listed(folder: Path, path: str) -> list[str]:
    try:
        return sorted(child.name for child in folder.iterdir())
    except OSError as error:
        raise _Unusable(path, f"cannot be read: {error.strerror}") from error


def _source(path: str, location: Path) -> Source:
    with location.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    entry = types_pb2.FileEntry(
        path=path,
        digest=f"sha256:{digest}",
        size_bytes=status.st_size,
        executable=bool(status.st_mode & stat.S_IXUSR),
    )
    return Source(location, entry)
