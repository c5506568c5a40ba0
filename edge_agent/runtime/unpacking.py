"""Layers of files, unpacked where they can do no harm. Blocks: for threads."""

import hashlib
import io
import os
import tarfile
from collections.abc import Set
from pathlib import Path, PurePosixPath
from typing import BinaryIO

CHUNK = 256 * 1024


class UnsafeLayer(ValueError):
    """The layer holds what no builder of ours packs; the text says what."""


class DamagedLayer(ValueError):
    """The file is not what its digest says."""


def unpack(layer: Path, digest: str, target: Path, folders: Set[str] | None) -> None:
    """Adds the layer's files to `target`, a folder of our own; they lie below those of `folders` (None: anywhere in
    it), and are regular.

    Raises UnsafeLayer, DamagedLayer, OSError; what was unpacked until then is there and must not be used.
    """
    with layer.open("rb") as raw:
        seen = _Seen(raw)
        try:
            with tarfile.open(fileobj=seen, mode="r|gz") as archive:
                for member in archive:
                    _add(archive, member, target, folders)
        except (tarfile.TarError, EOFError) as error:
            raise DamagedLayer(f"{digest} is no whole archive: {error}") from error
        seen.drain()
    if seen.digest != digest:
        raise DamagedLayer(f"the content of {digest} has changed")
    for folder, _, _ in os.walk(target):
        # Whatever the umask: a workload reads its files as another user.
        Path(folder).chmod(0o755)


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, folders: Set[str] | None) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UnsafeLayer(f"{member.name!r} is no path in a folder")
    if folders is not None and path.parts[0] not in folders:
        raise UnsafeLayer(f"{member.name!r} would lie outside of {', '.join(sorted(folders))}")
    place = target / path
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        raise UnsafeLayer(f"{member.name!r} is neither a file nor a folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    mode = 0o755 if member.mode & 0o100 else 0o644
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        while chunk := content.read(CHUNK):
            file.write(chunk)


class _Seen(io.RawIOBase):
    """Passes a file on and remembers the digest of what went by."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def drain(self) -> None:
        """What follows the archive's end is part of the blob too."""
        while self.read(CHUNK):
            pass

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"
