"""What package managers fetched, kept between builds: folders that go as a whole."""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.housekeeping.sizes import last_use, size_below

GONE = ".gone-"


@dataclass(frozen=True)
class PackageCache:
    folder: Path
    last_used: float
    bytes: int


class PackageCaches:
    """The folders in `inside`, and `folders`."""

    def __init__(self, inside: Path, folders: Sequence[Path]) -> None:
        self._inside = inside
        self._folders = folders

    def found(self) -> list[PackageCache]:
        """The one that was not used for longest first. Blocks for as long as looking at each file takes."""
        inside = self._inside.iterdir() if self._inside.exists() else ()
        there = [each for each in (*inside, *self._folders) if each.is_dir() and not each.name.startswith(GONE)]
        caches = [PackageCache(folder, last_use(folder), size_below(folder)) for folder in there]
        return sorted(caches, key=lambda cache: (cache.last_used, cache.folder))

    async def remove(self, cache: PackageCache) -> None:
        """It is gone at once, as a whole: a build that begins meanwhile finds all of a package or nothing. Its room
        is free afterwards."""
        trash = Path(tempfile.mkdtemp(prefix=GONE, dir=cache.folder.parent))
        cache.folder.rename(trash / cache.folder.name)
        await asyncio.to_thread(shutil.rmtree, trash, True)

    def finish(self) -> None:
        """Removes what a killed controller had not removed to the end. Blocks."""
        for parent in {self._inside, *(folder.parent for folder in self._folders)}:
            for trash in parent.glob(f"{GONE}*"):
                shutil.rmtree(trash, ignore_errors=True)
