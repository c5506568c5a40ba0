"""A disk as a power cut leaves it: only what was written out is on it."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 2**20
INNER = "inner.img"


@dataclass(frozen=True)
class CutDisk:
    """An ext4 mounted at `path`, in a file on another one: while that is frozen nothing can be written out."""

    path: Path
    _outer: Path

    @contextmanager
    def after_power_cut(self, at: Path) -> Iterator[Path]:
        """What was written out at this moment, checked as a machine does when it boots, mounted `at` a new folder."""
        copy = at.with_name(f"{at.name}.img")
        subprocess.run(["fsfreeze", "--freeze", self._outer], check=True)
        try:
            subprocess.run(["cp", "--sparse=always", self._outer / INNER, copy], check=True)
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self._outer], check=True)
        try:
            # 1: errors were corrected.
            assert subprocess.run(["e2fsck", "-fp", copy], capture_output=True, check=False).returncode in (0, 1)
            with _mounted(copy, at):
                yield at
        finally:
            copy.unlink()


@contextmanager
def cut_disk(folder: Path, mib: int) -> Iterator[CutDisk]:
    """In this folder, as long as the block lasts. Skips where there are no loop devices."""
    outer_image = _image(folder / "outer.img", folder / "outer", mib + mib // 4)
    with outer_image as outer, _image(outer / INNER, folder / "disk", mib) as disk:
        yield CutDisk(disk, outer)


@contextmanager
def _image(image: Path, at: Path, mib: int) -> Iterator[Path]:
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    with _mounted(image, at):
        yield at


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[None]:
    at.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs a loop device: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily: a process that was killed a moment ago may hold a file still.
        subprocess.run(["umount", "--lazy", at], check=True)
        with contextlib.suppress(OSError):
            at.rmdir()
