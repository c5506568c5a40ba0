"""Uploaded files by digest: a content-addressed folder that survives power cuts and two writers of one content.

complete/ab/abcd...   whole, checked, on disk; mode 0644 and modification time 0, so that a hard link of it in a
                      build context always looks the same
partial/abcd...       what has come so far
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from controller.builds.archive_limits import ArchiveLimits
from controller.builds.cancelling import in_thread
from controller.builds.intake import Intake, opened_intake
from controller.errors import DataLoss, InvalidRequest, NotFound, OutOfRange, ResourceExhausted
from controller.files import sync_folder
from longshore.errors import Reason

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
READ_SIZE = 4 * 2**20
# That a content is needed still is noted once in so many seconds.
USE_NOTED_EVERY = 3600.0
# The free space is looked at again after this many bytes.
SPACE_CHECK_EVERY = 64 * 2**20


class UploadState(NamedTuple):
    """`held_bytes` is where an unfinished upload goes on; the whole size where it is complete."""

    complete: bool
    held_bytes: int


class Content(NamedTuple):
    """A complete content. `last_used`: when somebody last asked for it, in seconds since the epoch."""

    digest: str
    size: int
    last_used: float


@dataclass
class _Partial:
    """One unfinished content in this process. `hasher` has seen the first `held` bytes."""

    lock: asyncio.Lock
    writers: int = 0
    held: int = -1
    hasher: "hashlib._Hash | None" = None


class UploadStore:
    """The folder and what is written to it. One process writes; readers may be many."""

    def __init__(
        self,
        folder: Path,
        min_free_bytes: int = 2**30,
        max_bytes: int = 64 * 2**30,
        archive_limits: ArchiveLimits | None = None,
    ) -> None:
        self.archive_limits = archive_limits or ArchiveLimits()
        self.folder = folder
        self._complete = folder / "complete"
        self._partial = folder / "partial"
        self._min_free_bytes = min_free_bytes
        self._max_bytes = max_bytes
        self._open: dict[str, _Partial] = {}
        self._partial.mkdir(parents=True, exist_ok=True)
        self._complete.mkdir(parents=True, exist_ok=True)

    def stat(self, digest: str) -> UploadState:
        """What is held of a content. Raises InvalidRequest for a malformed digest."""
        _check_digest(digest)
        final, partial = self._final(digest), self._partial_path(digest)
        # Housekeeping may remove it at any moment.
        with contextlib.suppress(FileNotFoundError):
            _mark_used(final)
            return UploadState(True, final.stat().st_size)
        return UploadState(False, partial.stat().st_size if partial.exists() else 0)

    def path(self, digest: str) -> Path:
        """The file of a complete content; it must not be changed. Raises NotFound where it is not complete."""
        _check_digest(digest)
        final = self._final(digest)
        try:
            _mark_used(final)
        except FileNotFoundError as error:
            message = f"the content {digest} was not uploaded; upload it"
            raise NotFound(Reason.MISSING_UPLOADS, message, digest=digest) from error
        return final

    def contents(self) -> Iterator[Content]:
        """All complete contents."""
        for path in self._complete.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                yield Content(f"sha256:{path.name}", status.st_size, status.st_ctime)

    def remove(self, digest: str, last_used: float) -> bool:
        """Removes a content unless it was used since. Whether it did."""
        final = self._final(digest)
        try:
            unused = final.stat().st_ctime <= last_used
        except FileNotFoundError:
            return False
        if unused:
            final.unlink()
        return unused

    def remove_partial(self, before: float) -> None:
        """Removes unfinished contents to which nothing was added since."""
        for path in self._partial.iterdir():
            if path.stat().st_mtime < before and f"sha256:{path.name}" not in self._open:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextlib.contextmanager
    def intake(self) -> Iterator[Intake]:
        """Takes contents that the server made; none stays without a `commit`. Raises ResourceExhausted."""
        try:
            with opened_intake(self._partial, self._final, lambda: self._check_space(0)) as intake:
                yield intake
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(0, 0) from error
            raise

    async def write(self, digest: str, size: int, offset: int, chunks: AsyncIterator[bytes]) -> UploadState:
        """Takes the bytes from `offset` on; with the last of them the content is checked, durable and complete.

        A stream that ends early leaves what came, to go on from later; a complete content is answered at once.
        Several writers of one content are harmless: bytes that are already held are passed over.
        Raises OutOfRange (the offset is not what is held), DataLoss (the digest does not match: all that was held is
        dropped), ResourceExhausted (DISK_FULL, TOO_LARGE) and InvalidRequest.
        """
        self._check_request(digest, size, offset)
        if self.stat(digest).complete:
            return self.stat(digest)
        partial = self._open.setdefault(digest, _Partial(asyncio.Lock()))
        partial.writers += 1
        try:
            return await self._take(partial, digest, size, offset, chunks)
        finally:
            partial.writers -= 1
            if not partial.writers:
                self._open.pop(digest, None)

    async def _take(
        self, partial: _Partial, digest: str, size: int, offset: int, chunks: AsyncIterator[bytes]
    ) -> UploadState:
        await self._begin(partial, digest, size, offset)
        position, unchecked = offset, 0
        async for chunk in chunks:
            if position + len(chunk) > size:
                raise InvalidRequest("data", f"more than the announced {size} bytes were sent")
            async with partial.lock:
                if self.stat(digest).complete:
                    return self.stat(digest)
                await in_thread(self._append, partial, digest, position, chunk)
            position += len(chunk)
            unchecked += len(chunk)
            if unchecked >= SPACE_CHECK_EVERY:
                unchecked = 0
                self._check_space(size - position)
        async with partial.lock:
            if not self.stat(digest).complete and partial.held == size:
                await in_thread(self._finish, partial, digest)
            return self.stat(digest)

    async def _begin(self, partial: _Partial, digest: str, size: int, offset: int) -> None:
        async with partial.lock:
            if partial.held < 0:
                await in_thread(self._reopen, partial, digest)
            if partial.held > size:
                raise InvalidRequest("size_bytes", f"{partial.held} bytes are held already, {size} were announced")
            if offset != partial.held:
                raise _wrong_offset(digest, partial.held, offset)
            self._check_space(size - offset)

    def _reopen(self, partial: _Partial, digest: str) -> None:
        partial.hasher, partial.held = hashlib.sha256(), 0
        path = self._partial_path(digest)
        if path.exists():
            with path.open("rb") as file:
                while piece := file.read(READ_SIZE):
                    partial.hasher.update(piece)
                    partial.held += len(piece)

    def _append(self, partial: _Partial, digest: str, position: int, chunk: bytes) -> None:
        """Called with the lock held."""
        fresh = chunk[partial.held - position :] if position <= partial.held else None
        if fresh is None or partial.hasher is None:
            raise _wrong_offset(digest, partial.held, position)
        if not fresh:
            return
        try:
            descriptor = os.open(self._partial_path(digest), os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.seek(partial.held)
                file.write(fresh)
        except OSError as error:
            # How much of the chunk was written is not known: the next writer reads the file again.
            os.truncate(self._partial_path(digest), partial.held) if self._partial_path(digest).exists() else None
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(len(fresh), 0) from error
            raise
        partial.hasher.update(fresh)
        partial.held += len(fresh)

    def _finish(self, partial: _Partial, digest: str) -> None:
        """Called with the lock held."""
        path, final = self._partial_path(digest), self._final(digest)
        assert partial.hasher is not None
        if f"sha256:{partial.hasher.hexdigest()}" != digest:
            path.unlink(missing_ok=True)
            partial.held = -1
            raise DataLoss(
                Reason.UPLOAD_CORRUPT, f"what was sent is not {digest}; it was dropped, send it again", digest=digest
            )
        final.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            os.fchmod(file.fileno(), 0o644)
            os.utime(file.fileno(), (0, 0))
            os.fsync(file.fileno())
        path.replace(final)
        for folder in (final.parent, self._complete, self._partial):
            sync_folder(folder)

    def _check_request(self, digest: str, size: int, offset: int) -> None:
        _check_digest(digest)
        if size < 0 or offset < 0 or offset > size:
            raise InvalidRequest("offset", f"expected 0 <= offset <= size, got offset {offset} of {size}")
        if size > self._max_bytes:
            raise ResourceExhausted(
                Reason.TOO_LARGE, f"{digest} has {size} bytes; at most {self._max_bytes} are taken", digest=digest
            )

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._partial).free
        if free - needed < self._min_free_bytes:
            raise _disk_full(needed, free - self._min_free_bytes)

    def _final(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._complete / name[:2] / name

    def _partial_path(self, digest: str) -> Path:
        return self._partial / digest.removeprefix("sha256:")


def _mark_used(path: Path) -> None:
    """Sets the time of the last change of its entry, the only one that says nothing in a build context."""
    if time.time() - path.stat().st_ctime > USE_NOTED_EVERY:
        os.utime(path, (0, 0))


def _check_digest(digest: str) -> None:
    if not DIGEST.match(digest) or digest.endswith("\n"):
        raise InvalidRequest("digest", "expected sha256: and 64 lower-case hexadecimal digits")


def _wrong_offset(digest: str, held: int, offset: int) -> OutOfRange:
    return OutOfRange(
        Reason.UPLOAD_OFFSET, f"{digest}: {held} bytes are held, the data begins at {offset}; go on at {held}",
        digest=digest, held_bytes=str(held),
    )  # fmt: skip


def _disk_full(needed: int, available: int) -> ResourceExhausted:
    return ResourceExhausted(
        Reason.DISK_FULL,
        f"the server's disk is nearly full: need {needed} bytes, {max(available, 0)} available; "
        "try again when space was freed",
    )
