"""Files that must be whole or absent after a power cut."""

import ctypes
import os
import tempfile
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Afterwards `path` has this content and mode, also after a power cut; before, it has the old one or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names made or removed in `folder` survive a power cut from now on."""
    _sync(folder, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """What was written to the file survives a power cut from now on."""
    _sync(path, 0)


def sync_below(folder: Path) -> None:
    """What lies below the folder, and on all of its file system, survives a power cut from now on.

    In one call, since thousands of files would take seconds: syncfs(2).
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _sync(path: Path, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
