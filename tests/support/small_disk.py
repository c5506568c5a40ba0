"""A disk that is small enough to be filled."""

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 2**20


@dataclass(frozen=True)
class SmallDisk:
    """`path` is where it is mounted."""

    path: Path

    def fill(self, leave: int = 0) -> None:
        """Afterwards there is room for no more than so many bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            while (room := self.free() - leave) > 0:
                try:
                    file.write(bytes(min(room, MIB)))
                except OSError as full:
                    if full.errno != errno.ENOSPC:
                        raise
                    return

    def fill_with_files(self) -> None:
        """Afterwards there can be no more files."""
        self._files.mkdir()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (self._files / str(number)).touch()

    def free_again(self) -> None:
        """Afterwards there is the room that there was before it was filled."""
        self._ballast.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)

    def free(self) -> int:
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    @property
    def _files(self) -> Path:
        return self.path / "files"


@contextmanager
def small_disk(path: Path, mib: int, files: int = 20_000) -> Iterator[SmallDisk]:
    """Mounted at `path`, which is made, while the block lasts."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,nr_inodes={files}", "none", path], check=True)
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a process that was killed a moment ago may hold a file still.
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def small_image_disk(path: Path, mib: int) -> Iterator[SmallDisk]:
    """As `small_disk`, with a file system on which containers' layers can be mounted: ext4, in a file beside it. Skips
    where this machine has no loop devices."""
    path.mkdir(parents=True)
    image = path.with_name(f"{path.name}.img")
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs a loop device: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
        image.unlink()
