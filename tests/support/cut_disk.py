"""A disk as a power cut leaves it: only what was written out is on it."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 2**20


@contextmanager
def image_disk(image: Path, at: Path, mib: int) -> Iterator[Path]:
    """A new ext4 in the file `image`, mounted `at` a folder that is made. Skips where there are no loop devices."""
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    with _mounted(image, at):
        yield at


@contextmanager
def after_power_cut(image: Path, at: Path) -> Iterator[Path]:
    """What is in the file of a mounted disk at this moment, checked as a machine does when it boots, mounted `at`."""
    copy = at.with_name(f"{at.name}.img")
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    try:
        # 1: errors were corrected. The copy takes a moment, in which the disk goes on.
        assert subprocess.run(["e2fsck", "-fy", copy], capture_output=True, check=False).returncode in (0, 1)
        with _mounted(copy, at):
            yield at
    finally:
        copy.unlink()


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
