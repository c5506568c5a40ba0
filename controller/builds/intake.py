"""Contents that come from the server's own work into the uploads: all of them, or none."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.files import sync_folder

READ_SIZE = 2**20
# The free space is looked at again after so many bytes, and after so many contents.
SPACE_CHECK_EVERY, SPACE_CHECK_CONTENTS = 64 * 2**20, 100
# Beginning of the names of folders below `partial/`; what a kill left of them is removed by age.
PREFIX = ".intake-"

Read = Callable[[int], bytes]


class Intake:
    """Contents on their way; `commit` makes them complete."""

    def __init__(self, folder: Path, final: Callable[[str], Path], check_space: Callable[[], None]) -> None:
        self._folder = folder
        self._final = final
        self._check_space = check_space
        self._taken: dict[str, Path] = {}
        self._count = 0

    def add(self, read: Read) -> tuple[str, int]:
        """Takes what `read` gives, to its end. Digest and size."""
        hasher, size, unchecked = hashlib.sha256(), 0, 0
        self._count += 1
        if self._count % SPACE_CHECK_CONTENTS == 1:
            self._check_space()
        path = self._folder / str(self._count)
        with path.open("wb") as file:
            while piece := read(READ_SIZE):
                hasher.update(piece)
                file.write(piece)
                size += len(piece)
                unchecked += len(piece)
                if unchecked >= SPACE_CHECK_EVERY:
                    unchecked = 0
                    self._check_space()
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.utime(file.fileno(), (0, 0))
        digest = f"sha256:{hasher.hexdigest()}"
        if digest in self._taken:
            path.unlink()
        self._taken.setdefault(digest, path)
        return digest, size

    def commit(self) -> None:
        """Afterwards all of them are complete and durable."""
        fresh = {digest: path for digest, path in self._taken.items() if not self._final(digest).exists()}
        for path in fresh.values():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for digest, path in fresh.items():
            final = self._final(digest)
            final.parent.mkdir(exist_ok=True)
            path.replace(final)
        for folder in {self._final(digest).parent for digest in fresh}:
            sync_folder(folder)
            sync_folder(folder.parent)


@contextmanager
def opened_intake(partial: Path, final: Callable[[str], Path], check_space: Callable[[], None]) -> Iterator[Intake]:
    """Without a `commit`, nothing stays. `final`: where the content of a digest belongs; `check_space` raises where
    there is no more room."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=partial))
    try:
        yield Intake(folder, final, check_space)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
