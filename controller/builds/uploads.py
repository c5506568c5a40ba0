"""Uploaded files by digest: a content-addressed folder that survives power cuts and two writers of one content.

complete/ab/abcd...       whole, checked, on disk; mode 0644 and modification time 0, so that a hard link of it in a
                          build context always looks the same
owners/ab/abcd....OWNER   somebody has uploaded it whole; OWNER is a hash of the user's id
partial/                  what has come so far: `controller.builds.partials`

A content is stored once, whoever uploads it. But a digest is no secret (bills of materials list them), so for a user
only what this user has sent is there: others learn neither what it is nor whether it is there.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from controller.builds.archive_limits import ArchiveLimits
from controller.builds.cancelling import in_thread
from controller.builds.intake import Intake, opened_intake
from controller.builds.partials import (
    SYNC_EVERY,
    Partial,
    disk_full,
    held_bytes,
    remove_partials,
    telling_of_a_full_disk,
    wrong_offset,
)
from controller.errors import InvalidRequest, NotFound, ResourceExhausted
from controller.files import sync_folder
from longshore.errors import Reason

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
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


class UploadStore:
    """The folder and what is written to it. One process writes; readers may be many.

    `owner`: the id of the user who asks; "" for those to whom all contents are known, such as administrators.
    """

    def __init__(
        self,
        folder: Path,
        min_free_bytes: int = 2**30,
        max_bytes: int = 64 * 2**30,
        archive_limits: ArchiveLimits | None = None,
        sync_every: int = SYNC_EVERY,
    ) -> None:
        self.archive_limits = archive_limits or ArchiveLimits()
        self.folder = folder
        self._complete = folder / "complete"
        self._owners = folder / "owners"
        self._partial = folder / "partial"
        self._min_free_bytes = min_free_bytes
        self._max_bytes = max_bytes
        self._sync_every = sync_every
        self._open: dict[Path, Partial] = {}
        for each in (self._partial, self._complete, self._owners):
            each.mkdir(parents=True, exist_ok=True)

    def stat(self, digest: str, owner: str = "") -> UploadState:
        """What is held of a content for this user. Raises InvalidRequest for a malformed digest."""
        _check_digest(digest)
        # Housekeeping may remove it at any moment.
        with contextlib.suppress(FileNotFoundError):
            if self._is_known(digest, owner):
                final = self._final(digest)
                _mark_used(final)
                return UploadState(True, final.stat().st_size)
        return UploadState(False, held_bytes(self._partial_path(digest, owner)))

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
            for mark in self._owners.glob(f"{final.parent.name}/{final.name}.*"):
                mark.unlink()
        return unused

    def remove_partial(self, before: float) -> None:
        """Removes unfinished contents to which nothing was added since."""
        remove_partials(self._partial, before, self._open)

    @contextlib.contextmanager
    def intake(self) -> Iterator[Intake]:
        """Takes contents that the server made; none stays without a `commit`. Raises ResourceExhausted."""
        with (
            telling_of_a_full_disk(),
            opened_intake(self._partial, self._final, lambda: self._check_space(0)) as intake,
        ):
            yield intake

    async def write(
        self, digest: str, size: int, offset: int, chunks: AsyncIterator[bytes], owner: str = ""
    ) -> UploadState:
        """Takes the bytes from `offset` on; with the last of them the content is checked, durable and complete.

        A stream that ends early leaves what came, durably, to go on from later; a content that is complete for this
        user is answered at once. Several writers of one content are harmless: bytes that are already held are passed
        over. Raises OutOfRange (the offset is not what is held), DataLoss (the digest does not match: all that was held
        is dropped), ResourceExhausted (DISK_FULL, TOO_LARGE) and InvalidRequest.
        """
        self._check_request(digest, size, offset)
        if (state := self.stat(digest, owner)).complete:
            return state
        path = self._partial_path(digest, owner)
        partial = self._open.setdefault(path, Partial(path, digest, self._sync_every))
        partial.writers += 1
        try:
            await self._begin(partial, digest, size, offset)
            await self._take(partial, digest, owner, size, offset, chunks)
            return self.stat(digest, owner)
        finally:
            partial.writers -= 1
            if not partial.writers:
                self._open.pop(path, None)

    async def _begin(self, partial: Partial, digest: str, size: int, offset: int) -> None:
        async with partial.lock:
            if partial.held < 0:
                await in_thread(partial.open)
            if partial.held > size:
                raise InvalidRequest("size_bytes", f"{partial.held} bytes are held already, {size} were announced")
            if offset != partial.held:
                raise wrong_offset(digest, partial.held, offset)
            self._check_space(size - offset)

    async def _take(
        self, partial: Partial, digest: str, owner: str, size: int, offset: int, chunks: AsyncIterator[bytes]
    ) -> None:
        position, unchecked = offset, 0
        async for chunk in chunks:
            if position + len(chunk) > size:
                raise InvalidRequest("data", f"more than the announced {size} bytes were sent")
            async with partial.lock:
                if self._is_known(digest, owner):
                    return
                await in_thread(partial.append, position, chunk)
            position += len(chunk)
            unchecked += len(chunk)
            if unchecked >= SPACE_CHECK_EVERY:
                unchecked = 0
                self._check_space(size - position)
        async with partial.lock:
            if not self._is_known(digest, owner):
                await in_thread(self._end, partial, digest, owner, size)

    def _end(self, partial: Partial, digest: str, owner: str, size: int) -> None:
        """Called with the lock held."""
        if partial.held != size:
            partial.sync()
            return
        partial.check()
        # Before it is there: a kill between the two would have the user send all of it again.
        self._mark_owner(digest, owner)
        partial.move(self._final(digest))

    def _is_known(self, digest: str, owner: str) -> bool:
        """Whether the content is complete, and this user has sent it or may know all."""
        return self._final(digest).exists() and (not owner or self._owner_mark(digest, owner).exists())

    def _mark_owner(self, digest: str, owner: str) -> None:
        if owner:
            mark = self._owner_mark(digest, owner)
            mark.parent.mkdir(exist_ok=True)
            mark.touch(0o600)
            for folder in (mark.parent, self._owners):
                sync_folder(folder)

    def _owner_mark(self, digest: str, owner: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._owners / name[:2] / f"{name}.{_hash(owner)}"

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
            raise disk_full(needed, free - self._min_free_bytes)

    def _final(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._complete / name[:2] / name

    def _partial_path(self, digest: str, owner: str) -> Path:
        return self._partial / f"{digest.removeprefix('sha256:')}.{_hash(owner)}"


def _mark_used(path: Path) -> None:
    """Sets the time of the last change of its entry, the only one that says nothing in a build context."""
    if time.time() - path.stat().st_ctime > USE_NOTED_EVERY:
        os.utime(path, (0, 0))


def _check_digest(digest: str) -> None:
    if not DIGEST.match(digest) or digest.endswith("\n"):
        raise InvalidRequest("digest", "expected sha256: and 64 lower-case hexadecimal digits")


def _hash(owner: str) -> str:
    """A user's id may be any text; this is a name for a file."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]
