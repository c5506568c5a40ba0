"""Room on the disk, looked at before something is brought that takes some, and what is said of a disk that fails."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from edge_agent.runtime.backend import BackendError, BackendUnavailable

MIB = 1024 * 1024


def free_bytes(folder: Path) -> int:
    """What ordinary programs may still write to the file system of this folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require_room(reference: str, folder: Path, needed: int) -> None:
    """Raises BackendError "DiskFull" where so many bytes do not fit."""
    if needed > free_bytes(folder):
        raise disk_full(reference, folder, needed)


@contextlib.contextmanager
def disk_told(reference: str, folder: Path) -> Iterator[None]:
    """An OSError inside is told in the words of the backend: "DiskFull", or that the folder cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(reference, folder, 0) from error
        raise BackendUnavailable("StorageUnavailable", f"cannot use {folder}: {error}") from error


def disk_full(reference: str, folder: Path, needed: int) -> BackendError:
    """`needed` is 0 where nobody knows."""
    free = f"free {_mib(free_bytes(folder))}"
    numbers = f"need {_mib(needed)}, {free}" if needed else free
    message = f"cannot pull {reference}: disk full ({numbers}); free space below {folder}"
    return BackendError("DiskFull", message, retryable=True)


def _mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count >= MIB else f"{count} bytes"
