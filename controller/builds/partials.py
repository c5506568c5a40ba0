"""Unfinished uploads: a file for each content and uploader, of which a power cut takes little.

DIGEST.OWNER           what has come so far
DIGEST.OWNER.durable   the boot of the machine in which the file was written, and how much of it is on the disk for
                       sure: after another boot only that counts, since a file system may keep a length whose bytes
                       never reached the disk
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from controller.builds.full_disk import FULL
from controller.errors import DataLoss, OutOfRange, ResourceExhausted
from controller.files import sync_file, sync_folder, write_durably
from longshore.errors import Reason

READ_SIZE = 4 * 2**20
# After so many bytes they are brought to the disk: a power cut takes no more of an upload.
SYNC_EVERY = 256 * 2**20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NOTE = ".durable"


class Partial:
    """One unfinished content in this process. All calls block, and are made by whoever has the lock."""

    def __init__(self, path: Path, digest: str, sync_every: int) -> None:
        self.lock = asyncio.Lock()
        self.writers = 0
        # How many bytes there are; below zero before `open`.
        self.held = -1
        self._path = path
        self._digest = digest
        self._sync_every = sync_every
        self._durable = 0
        self._hasher = hashlib.sha256()

    def open(self) -> None:
        """Reads what is there. What a power cut may have spoilt is cut off. Raises ResourceExhausted."""
        self._hasher, held = hashlib.sha256(), held_bytes(self._path)
        if self._path.exists():
            # Before it is noted as of this boot: from then on all that lies there counts.
            os.truncate(self._path, held)
        if held:
            with self._path.open("rb") as file:
                while piece := file.read(READ_SIZE):
                    self._hasher.update(piece)
        self._durable = min(held, _read_note(self._path)[1])
        with telling_of_a_full_disk():
            self._note()
        self.held = held

    def append(self, position: int, chunk: bytes) -> None:
        """Takes what is new of bytes that begin at `position`. Raises OutOfRange, ResourceExhausted."""
        if self.held < 0 or position > self.held:
            raise wrong_offset(self._digest, max(self.held, 0), position)
        fresh = chunk[self.held - position :]
        if not fresh:
            return
        with telling_of_a_full_disk(len(fresh)), self._unchanged_by_failure(self.held):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.seek(self.held)
                file.write(fresh)
        self._hasher.update(fresh)
        self.held += len(fresh)
        if self.held - self._durable >= self._sync_every:
            self.sync()

    def sync(self) -> None:
        """Afterwards all that is held outlives a power cut. Raises ResourceExhausted."""
        if self.held <= self._durable:
            return
        with telling_of_a_full_disk():
            try:
                sync_file(self._path)
            except OSError:
                # The kernel gives up what it could not write: what was held is no longer what lies there.
                os.truncate(self._path, self._durable)
                self.held = -1
                raise
            self._durable = self.held
            self._note()

    def check(self) -> None:
        """Returns where it is the content. Raises DataLoss else, and then nothing of it is left."""
        if f"sha256:{self._hasher.hexdigest()}" != self._digest:
            self.drop()
            raise DataLoss(
                Reason.UPLOAD_CORRUPT,
                f"what was sent is not {self._digest}; it was dropped, send it again",
                digest=self._digest,
            )

    def move(self, final: Path) -> None:
        """Afterwards the whole content is durable at `final`, where it may lie already."""
        # Where it does, housekeeping is told that it is needed.
        with contextlib.suppress(FileNotFoundError):
            os.utime(final, (0, 0))
            self.drop()
            return
        final.parent.mkdir(exist_ok=True)
        with self._path.open("ab") as file:
            os.fchmod(file.fileno(), 0o644)
            os.utime(file.fileno(), (0, 0))
            os.fsync(file.fileno())
        _note_of(self._path).unlink(missing_ok=True)
        self._path.replace(final)
        for folder in (final.parent, final.parent.parent, self._path.parent):
            sync_folder(folder)

    def drop(self) -> None:
        """Afterwards nothing of it is left."""
        self._path.unlink(missing_ok=True)
        _note_of(self._path).unlink(missing_ok=True)
        self.held = -1

    def _note(self) -> None:
        note, text = _note_of(self._path), f"{_boot()} {self._durable}\n"
        if self._durable:
            write_durably(note, text.encode())
        elif not note.exists() or note.read_text() != text:
            # A note that is lost says that nothing is on the disk for sure, as this one does: no need to wait for it.
            note.write_text(text)

    @contextlib.contextmanager
    def _unchanged_by_failure(self, length: int) -> Iterator[None]:
        """How much of a chunk was written is not known."""
        try:
            yield
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(self._path, length)
            raise


def held_bytes(path: Path) -> int:
    """Where an unfinished upload goes on: so much of its file can be relied upon."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    boot, durable = _read_note(path)
    return size if boot == _boot() else min(size, durable)


def remove_partials(folder: Path, before: float, busy: Collection[Path]) -> None:
    """Removes unfinished contents to which nothing was added since, but those in `busy`; and what else is that old."""
    for path in sorted(folder.iterdir()):
        if path.name.endswith(NOTE) and path.with_name(path.name.removesuffix(NOTE)).exists():
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before and path not in busy:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                _note_of(path).unlink(missing_ok=True)


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + NOTE)


def _read_note(path: Path) -> tuple[str, int]:
    """Boot and length. One that says neither is as good as none."""
    try:
        boot, durable = _note_of(path).read_text().split()
        return boot, int(durable)
    except (FileNotFoundError, ValueError):
        return "", 0


def _boot() -> str:
    return BOOT_ID.read_text().strip()


@contextlib.contextmanager
def telling_of_a_full_disk(needed: int = 0) -> Iterator[None]:
    """What the system says of a full disk in the block is ResourceExhausted; `needed`: bytes."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(needed, 0) from error
        raise


def wrong_offset(digest: str, held: int, offset: int) -> OutOfRange:
    return OutOfRange(
        Reason.UPLOAD_OFFSET, f"{digest}: {held} bytes are held, the data begins at {offset}; go on at {held}",
        digest=digest, held_bytes=str(held),
    )  # fmt: skip


def disk_full(needed: int, available: int) -> ResourceExhausted:
    return ResourceExhausted(
        Reason.DISK_FULL,
        f"the server's disk is nearly full: need {needed} bytes, {max(available, 0)} available; "
        "try again when space was freed",
    )
