"""Contents in a registry: sent only where they are missing, in pieces, and from where a broken connection ended.

The OCI distribution specification, "Pushing blobs": https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from controller.builds.registry_session import RegistryRefused, RegistrySession, RegistryUnreachable, require

PIECE = 8 * 2**20
# How often a blob's upload may break without one more byte having arrived before it counts as failed.
BROKEN_TRIES = 3
# How much of an upload a registry says that it holds.
HELD = re.compile(r"(?:bytes=)?[0-9]{1,18}-([0-9]{1,18})")


@dataclass(frozen=True)
class Blob:
    """A content, in memory or in a file, and how a manifest describes it."""

    media_type: str
    digest: str
    size_bytes: int
    content: bytes | Path
    annotations: tuple[tuple[str, str], ...] = ()

    def piece(self, offset: int) -> bytes:
        """At most PIECE bytes from `offset` on. Blocks."""
        if isinstance(self.content, bytes):
            return self.content[offset : offset + PIECE]
        with self.content.open("rb") as file:
            file.seek(offset)
            return file.read(PIECE)

    def descriptor(self) -> dict[str, object]:
        """As the OCI image specification has it, "Content Descriptors"."""
        described: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}
        return {**described, "annotations": dict(self.annotations)} if self.annotations else described


def blob_of(media_type: str, content: bytes, annotations: tuple[tuple[str, str], ...] = ()) -> Blob:
    return Blob(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content, annotations)


async def has_blob(session: RegistrySession, digest: str) -> bool:
    """Whether the repository holds this content. Raises RegistryUnreachable."""
    async with session.request("HEAD", f"blobs/{digest}") as answer:
        await require(answer, 200, 404)
        return answer.status == 200


async def push_blob(session: RegistrySession, blob: Blob, mount_from: str = "") -> int:
    """Afterwards the repository holds the content. Returns how many bytes were sent for that.

    `mount_from`: another repository of this registry, without its address, that may have it.
    Raises RegistryUnreachable, also where the registry refuses.
    """
    return 0 if await has_blob(session, blob.digest) else await send_blob(session, blob, mount_from)


async def send_blob(session: RegistrySession, blob: Blob, mount_from: str = "") -> int:
    """As push_blob, of a content that the repository is known to lack."""
    location = await _begin(session, blob, mount_from)
    if not location:
        return 0
    if blob.size_bytes <= PIECE:
        return await _send_whole(session, blob, location)
    return await _Upload(session, blob, location).run()


async def _begin(session: RegistrySession, blob: Blob, mount_from: str) -> str:
    """Where to send the content; "" where the registry took it from the other repository."""
    params = {"mount": blob.digest, "from": mount_from} if mount_from else {}
    async with session.request("POST", "blobs/uploads/", params=params) as answer:
        if answer.status == 201 and mount_from:
            return ""
        await require(answer, 202)
        return _location(answer)


async def _send_whole(session: RegistrySession, blob: Blob, location: str) -> int:
    """In one request, which is made anew where the connection breaks."""
    content = await asyncio.to_thread(blob.piece, 0)
    headers = {"Content-Type": "application/octet-stream"}
    for tries_left in reversed(range(BROKEN_TRIES)):
        try:
            params = {"digest": blob.digest}
            async with session.request("PUT", location, headers=headers, params=params, data=content) as answer:
                await require(answer, 201)
            break
        except RegistryRefused:
            raise
        except RegistryUnreachable:
            if not tries_left:
                raise
            location = await _begin(session, blob, "")
    return blob.size_bytes


class _Upload:
    """One content on its way. The registry says how much it holds whenever a connection broke."""

    def __init__(self, session: RegistrySession, blob: Blob, location: str) -> None:
        self._session = session
        self._blob = blob
        self._location = location
        self._held = 0
        self._sent = 0

    async def run(self) -> int:
        broken, furthest = 0, 0
        while self._held < self._blob.size_bytes:
            try:
                await self._send_piece()
            except RegistryRefused:
                raise
            except RegistryUnreachable:
                broken = broken + 1 if self._held <= furthest else 0
                if broken == BROKEN_TRIES:
                    raise
                furthest = max(furthest, self._held)
                await self._find_out()
        async with self._session.request("PUT", self._location, params={"digest": self._blob.digest}) as answer:
            await require(answer, 201)
        return self._sent

    async def _find_out(self) -> None:
        """How much arrived. CNCF Distribution gives up an upload whose last piece arrived in part: begin anew."""
        try:
            await self._ask()
        except RegistryRefused:
            self._location, self._held = await _begin(self._session, self._blob, ""), 0

    async def _send_piece(self) -> None:
        piece = await asyncio.to_thread(self._blob.piece, self._held)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._held}-{self._held + len(piece) - 1}",
        }
        async with self._session.request("PATCH", self._location, headers=headers, data=piece) as answer:
            await require(answer, 202)
            self._location = _location(answer)
        self._held += len(piece)
        self._sent += len(piece)

    async def _ask(self) -> None:
        async with self._session.request("GET", self._location) as answer:
            await require(answer, 204)
            self._location = answer.headers.get("Location", self._location)
            held = HELD.fullmatch(answer.headers.get("Range", "0-0"))
        if held is None:
            raise RegistryUnreachable(f"{self._session.host} does not say how much of an upload it holds")
        # A range has no way to say "nothing", so registries write 0-0 for it; one byte sent again does no harm.
        last = int(held[1])
        self._held = last + 1 if last else 0


def _location(answer: aiohttp.ClientResponse) -> str:
    """Where the upload goes on. Raises RegistryUnreachable where the answer does not say it."""
    location = answer.headers.get("Location", "")
    if not location:
        raise RegistryUnreachable(f"{answer.url.with_query(None)} does not say where the content is to be sent")
    return str(answer.url.join(URL(location, encoded=True)))
