"""Room on a disk that nobody else takes: what frees space takes some itself, and is done when nothing else can be."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

BYTES = 4 * 2**20


class Reserve:
    """A file. For one thread at a time; blocks for as long as the disk takes."""

    def __init__(self, path: Path, size: int = BYTES) -> None:
        self._path = path
        self._size = size

    def fill(self) -> None:
        """Afterwards it is as large as it is to be, or as the disk lets it."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _grow(descriptor, self._size)
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Its room is free in the block; what is left of it is taken again afterwards."""
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)
        try:
            yield
        finally:
            self.fill()


def _grow(descriptor: int, size: int) -> None:
    """Raises OSError where the disk has no room; then it has what room there was."""
    while (have := os.fstat(descriptor).st_size) < size:
        step = size - have
        while True:
            try:
                os.posix_fallocate(descriptor, have, step)
                break
            except OSError:
                os.truncate(descriptor, have)
                if step <= 4096:
                    raise
                step //= 2
