"""A build context as a tar archive, made piece by piece: nothing of it is held in memory or written to disk."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from controller.builds.context import ContextEntry

PIECE = 2**20


def archive(entries: Iterable[ContextEntry]) -> Iterator[bytes]:
    """The archive in pieces of at most 1 MiB: folders before what is in them, owner root, all times 0.

    The same entries give the same bytes. Blocks. Raises OSError where a file has gone or changed its size.
    """
    held = bytearray()
    for part in _parts(entries):
        held += part
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    if held:
        yield bytes(held)


def folder_entries(folder: Path) -> list[ContextEntry]:
    """All files below the folder, in the order of their names. Blocks."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [ContextEntry(str(path.relative_to(folder)), path, bool(path.stat().st_mode & 0o100)) for path in paths]


def _parts(entries: Iterable[ContextEntry]) -> Iterator[bytes]:
    known: set[PurePosixPath] = set()
    for entry in entries:
        for folder in reversed(PurePosixPath(entry.path).parents[:-1]):
            if folder not in known:
                known.add(folder)
                yield _header(f"{folder}/", tarfile.DIRTYPE, 0o755, 0)
        yield from _file(entry)
    # An archive ends with two empty blocks.
    yield bytes(2 * tarfile.BLOCKSIZE)


def _file(entry: ContextEntry) -> Iterator[bytes]:
    content = entry.content
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    yield _header(entry.path, tarfile.REGTYPE, entry.mode, size)
    sent = 0
    for piece in [content] if isinstance(content, bytes) else _pieces(content):
        sent += len(piece)
        yield piece
    if sent != size:
        raise OSError(f"{entry.path} has {sent} bytes, expected {size}")
    yield bytes(-size % tarfile.BLOCKSIZE)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _header(path: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size = kind, mode, size
    info.uname = info.gname = "root"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
