"""Room on the disk, looked at before something is brought that takes some, and what is said of a disk that fails."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.runtime.backend import BackendError, BackendUnavailable

MIB = 1024 * 1024


# What is told of free space is rounded down to this, so that it does not change all the time.
ROUNDED_TO = 64 * MIB


@dataclass(frozen=True)
class Space:
    """A file system, by the folder at which it is mounted; `free` is for ordinary programs. In bytes."""

    path: Path
    size: int
    free: int


def free_bytes(folder: Path) -> int:
    """What ordinary programs may still write to the file system of this folder, which need not exist yet."""
    found = os.statvfs(_existing(folder))
    return found.f_bavail * found.f_frsize


def spaces(folders: Iterable[Path]) -> list[Space]:
    """The file systems of these folders, each once; without those that cannot be asked."""
    found: dict[int, Space] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            place = _existing(folder)
            if place.stat().st_dev not in found:
                status = os.statvfs(place)
                size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
                found[place.stat().st_dev] = Space(_mount_point(place), size, free)
    return list(found.values())


def rounded(free: int, before: int | None = None) -> int:
    """Free bytes as they are told; as `before` while they are close to that."""
    if before is not None and before <= free < before + 2 * ROUNDED_TO:
        return before
    return free - free % ROUNDED_TO


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _mount_point(folder: Path) -> Path:
    folder = folder.resolve()
    while folder != folder.parent and folder.parent.stat().st_dev == folder.stat().st_dev:
        folder = folder.parent
    return folder


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
    free = f"free {in_mib(free_bytes(folder))}"
    numbers = f"need {in_mib(needed)}, {free}" if needed else free
    message = f"cannot pull {reference}: disk full ({numbers}); free space below {folder}"
    return BackendError("DiskFull", message, retryable=True)


def in_mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count >= MIB else f"{count} bytes"
