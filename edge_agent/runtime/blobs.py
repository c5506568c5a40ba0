"""Blobs of the registry on this device, each under its digest, complete and checked, or not there.

What a break leaves of one lies beside them and is the beginning of the next try. Blocks: for threads.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.disk import disk_told
from edge_agent.runtime.files import sync_folder, write_durably
from edge_agent.runtime.model import DIGEST
from edge_agent.runtime.registry import Registry, failed

CHUNK = 256 * 1024
TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Part:
    """A blob of the registry; `title` is the name of its file."""

    digest: str
    size: int
    media_type: str
    title: str = ""


def part_of(descriptor: Mapping[str, Any]) -> Part:
    """Of a descriptor in a manifest. Raises ValueError, KeyError, TypeError, AttributeError for what is none."""
    digest, title = str(descriptor["digest"]), str((descriptor.get("annotations") or {}).get(TITLE, ""))
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"{digest} is no digest")
    return Part(digest, int(descriptor["size"]), str(descriptor["mediaType"]), title)


class Abandoned(Exception):
    """Nobody waits for the fetch any more."""


class BlobStore:
    """Below `folder`, which is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._whole = folder / "sha256"
        self._partial = folder / "partial"

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would."""
        return self._whole / digest.removeprefix("sha256:")

    def has(self, part: Part) -> bool:
        path = self.path(part.digest)
        return path.is_file() and path.stat().st_size == part.size

    def begun(self, part: Part) -> int:
        """Bytes of it that are on the device."""
        if self.has(part):
            return part.size
        rest = self._rest(part.digest)
        return min(part.size, rest.stat().st_size) if rest.exists() else 0

    def read(self, digest: str) -> bytes | None:
        """A small blob, if it is here and sound."""
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return content if f"sha256:{hashlib.sha256(content).hexdigest()}" == digest else None

    def add(self, digest: str, content: bytes) -> None:
        """Stores a small blob that was checked, durably."""
        self._whole.mkdir(parents=True, exist_ok=True)
        write_durably(self.path(digest), content, 0o644)

    def sound(self, part: Part) -> bool:
        """Whether the content is still what the digest says. What is not is removed, to be fetched again."""
        if not self.has(part):
            return False
        with self.path(part.digest).open("rb") as file:
            if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == part.digest:
                return True
        self.path(part.digest).unlink()
        return False

    def fetch(self, part: Part, registry: Registry, report: Callable[[int], None], wanted: threading.Event) -> None:
        """Afterwards the blob is here, and its content, on the disk, is what the digest says; after a power cut it may
        count as begun until `settle`. `report` is told how many bytes of it are here. Raises BackendError; Abandoned
        soon after `wanted` is cleared.

        A connection that breaks is tried again as long as each try brings something.
        """
        for folder in (self._whole, self._partial):
            folder.mkdir(parents=True, exist_ok=True)
        while not self.has(part):
            before = self.begun(part)
            try:
                self._go_on(part, registry, report, wanted)
            except BackendError as error:
                if not error.retryable or self.begun(part) <= before:
                    raise

    def settle(self) -> None:
        """Afterwards all that was fetched outlives a power cut. Raises BackendError."""
        with disk_told("what was fetched", self._whole):
            sync_folder(self._whole)

    def keep_only(self, digests: frozenset[str]) -> None:
        """All other blobs are gone, and what was begun of them."""
        names = {digest.removeprefix("sha256:") for digest in digests}
        for folder in (self._whole, self._partial):
            for path in _entries(folder):
                if path.name not in names:
                    path.unlink(missing_ok=True)

    def _rest(self, digest: str) -> Path:
        return self._partial / digest.removeprefix("sha256:")

    def _go_on(self, part: Part, registry: Registry, report: Callable[[int], None], wanted: threading.Event) -> None:
        rest = self._rest(part.digest)
        reference = registry.reference(part.digest)
        with disk_told(reference, self._partial), rest.open("a+b") as file:
            # A thread whose fetch was abandoned may still be at it for a moment.
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_named(file, rest):
                return
            seen = _seen(file, part.size)
            if file.tell() < part.size:
                seen = _receive(file, seen, part, registry, report, wanted)
            file.flush()
            os.fsync(file.fileno())
        if f"sha256:{seen.hexdigest()}" != part.digest:
            rest.unlink()
            raise failed(reference, "what came is not what its digest says")
        rest.replace(self.path(part.digest))


def _is_named(file: IO[bytes], path: Path) -> bool:
    """Whether the file still goes by this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _seen(file: IO[bytes], size: int) -> "hashlib._Hash":
    """Of what an earlier try has left; more than there can be is thrown away. The file stands at its end."""
    if file.seek(0, os.SEEK_END) > size:
        file.truncate(0)
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest


def _receive(
    file: IO[bytes],
    seen: "hashlib._Hash",
    part: Part,
    registry: Registry,
    report: Callable[[int], None],
    wanted: threading.Event,
) -> "hashlib._Hash":
    """Adds what is lacking; the digest of all of it. Raises BackendError where the connection breaks off."""
    with registry.blob(part.digest, file.tell()) as (start, read):
        if start != file.tell():
            file.truncate(start)
            file.seek(start)
            seen = hashlib.sha256()
        while file.tell() < part.size and (chunk := read(min(CHUNK, part.size - file.tell()))):
            if not wanted.is_set():
                raise Abandoned
            file.write(chunk)
            seen.update(chunk)
            report(file.tell())
    if file.tell() < part.size:
        message = f"the connection broke off after {file.tell()} of {part.size} bytes"
        raise failed(registry.reference(part.digest), message)
    return seen


def _entries(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir() if folder.is_dir() else ()
