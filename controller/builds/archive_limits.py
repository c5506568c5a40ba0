"""What an archive of files may hold."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class ArchiveLimits:
    """`max_bytes`: unpacked; `max_files`: entries; `max_ratio`: how much more than the archive's own size it may
    unpack to, which matters from `freely` bytes on."""

    max_bytes: int = 64 * GIB
    max_files: int = 100_000
    max_ratio: int = 200
    freely: int = 2**28
