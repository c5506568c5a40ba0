"""Whether the disks have room for another build."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
# A build makes so many files at least; a disk may run out of them before it runs out of bytes.
MIN_FILES = 10_000


@dataclass(frozen=True)
class Room:
    """Of one file system. `free_files` is None where they are not counted."""

    free_bytes: int
    free_files: int | None


class Space:
    """`folders`: what lies there (as it is named to people), and where; those that do not exist are passed over.
    `min_free_bytes`: what has to be free on each of their disks before another build begins."""

    def __init__(self, folders: Mapping[str, Path], min_free_bytes: int) -> None:
        self._folders = dict(folders)
        self._min_free_bytes = min_free_bytes

    def condition(self) -> str:
        """ "" where there is room, else a sentence: which disk, how much is free, how much is needed."""
        return next((text for name, path in self._folders.items() if (text := self._trouble(name, path))), "")

    def lacks(self, path: Path) -> bool:
        """Whether what lies at this path is on one of those disks, and that has no room."""
        return self.missing(path) > 0

    def missing(self, path: Path) -> int:
        """How many bytes have to be freed on its disk before another build begins; 1 where files are missing, 0 where
        nothing is, or where builds do not need that disk."""
        folders = [folder for folder in self._folders.values() if folder.exists()]
        if not path.exists() or path.stat().st_dev not in {folder.stat().st_dev for folder in folders}:
            return 0
        lacking = self._min_free_bytes - room_of(path).free_bytes
        return max(lacking, 1) if self._trouble("", path) else 0

    def _trouble(self, name: str, path: Path) -> str:
        try:
            room = room_of(path)
        except FileNotFoundError:
            return ""
        if room.free_bytes < self._min_free_bytes:
            needed = -(-self._min_free_bytes // MIB)
            return (
                f"the disk of {name} ({path}) is nearly full: {room.free_bytes // MIB} MiB are free, {needed} MiB have "
                "to be before another build begins; free space, or lower min_free_mib"
            )
        if self._min_free_bytes and room.free_files is not None and room.free_files < MIN_FILES:
            return (
                f"the disk of {name} ({path}) has room for {room.free_files} more files only, {MIN_FILES} are needed "
                "before another build begins; remove files"
            )
        return ""


def room_of(path: Path) -> Room:
    """What this process may still use there. Raises FileNotFoundError."""
    status = os.statvfs(path)
    return Room(status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None)
