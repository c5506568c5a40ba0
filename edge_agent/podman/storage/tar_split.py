"""Whether the files of a layer are those that were fetched, by the digest of the archive that they came in.

Podman keeps beside each layer all of the archive but the files' content (github.com/vbatts/tar-split: JSON entries, one
a line, of type 1 for a file and 2 for a piece of the archive as it was). Both together are the archive again.
"""

import base64
import gzip
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

FILE, PIECE = 1, 2
CHUNK = 2**20
WHITEOUT = ".wh."


class Damaged(Exception):
    """The layer is not what was fetched; the text says what is wrong with it."""


class Unverifiable(Exception):
    """Nobody can tell: the recipe is lacking, or this process may not read the files."""


def verify(recipe: Path, folder: Path, digest: str) -> None:
    """Reads the whole layer. Raises Damaged or Unverifiable. Blocks for as long as reading takes."""
    if not digest.startswith("sha256:"):
        raise Unverifiable(f"digest {digest!r}")
    summed = hashlib.sha256()
    try:
        for piece in _archive(recipe, folder):
            summed.update(piece)
    except (PermissionError, EOFError, gzip.BadGzipFile, ValueError, KeyError) as error:
        raise Unverifiable(f"{type(error).__name__}: {error}") from error
    if f"sha256:{summed.hexdigest()}" != digest:
        raise Damaged("its files are not those that were fetched")


def _archive(recipe: Path, folder: Path) -> Iterator[bytes]:
    for entry in _entries(recipe):
        if entry["type"] == PIECE:
            yield base64.b64decode(entry.get("payload") or "")
        elif entry["type"] == FILE:
            yield from _content(folder, _name(entry), int(entry.get("size") or 0))


def _entries(recipe: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with gzip.open(recipe) as lines:
            for line in lines:
                yield json.loads(line)
    except FileNotFoundError as error:
        raise Unverifiable("its recipe is lacking") from error


def _name(entry: Mapping[str, Any]) -> str:
    if raw := entry.get("name_raw"):
        return os.fsdecode(base64.b64decode(raw))
    return str(entry["name"])


def _content(folder: Path, name: str, size: int) -> Iterator[bytes]:
    """Of a file, which has this size; of all else nothing, once it is there."""
    relative = PurePosixPath(name.lstrip("/"))
    if not relative.name or relative.name.startswith(WHITEOUT):
        # The layer's own folder; or what is hidden of the layers below, noted as the file system allows.
        return
    path = folder / relative
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise Unverifiable(f"{name} lies beyond a link out of the layer")
    found = _look(path, name)
    if not size:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        raise Damaged(f"{name} has {found.st_size} bytes instead of {size}")
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _look(path: Path, name: str) -> os.stat_result:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{name} is lacking") from error
