"""Blobs on their way from the registry to this device: only what is lacking, and from where a break left it."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from edge_agent.runtime.backend import Progress
from edge_agent.runtime.blobs import BlobStore, Part
from edge_agent.runtime.registry import Registry
from edge_agent.runtime.threads import in_thread
from edge_agent.runtime.together import together

Credentials = Callable[[], Awaitable[tuple[str, str]]]
REPORT_EVERY = 512 * 1024
# Parts that come at once: while one is waited for, by the registry or the disk, another one moves.
CONNECTIONS = 3


class Source:
    """The registry of one artifact, by connections that are kept until `close`. For one event loop."""

    def __init__(self, repository: str, credentials: Credentials, authority: Path | None) -> None:
        self._repository = repository
        self._credentials = credentials
        self._authority = authority
        self._opened: list[Registry] = []
        self._free: list[Registry] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Registry]:
        """One that nobody else has until the block ends."""
        registry = self._free.pop() if self._free else await self._another()
        yield registry
        # Not after an error: a thread that was abandoned may still read from it.
        self._free.append(registry)

    async def _another(self) -> Registry:
        if self._opened:
            registry = self._opened[0].another()
        else:
            registry = Registry(self._repository, await self._credentials(), self._authority)
        self._opened.append(registry)
        return registry

    def close(self) -> None:
        """What is being read breaks off."""
        for registry in self._opened:
            registry.close()


class PartFetcher:
    """Fetches into `blobs`. A part that two ask for at once is fetched once."""

    def __init__(self, blobs: BlobStore, credentials: Credentials, authority: Path | None) -> None:
        self._blobs = blobs
        self._credentials = credentials
        self._authority = authority
        self._locks: dict[str, asyncio.Lock] = {}

    def source(self, repository: str) -> Source:
        """To be closed."""
        return Source(repository, self._credentials, self._authority)

    async def manifest(self, source: Source, digest: str) -> bytes:
        """From the device where it is known here. Raises BackendError."""
        content = self._blobs.read(digest)
        if content is None:
            async with source.connection() as registry:
                content = await in_thread(lambda: registry.manifest(digest), registry.close)
            self._blobs.add(digest, content)
        return content

    async def content(self, source: Source, part: Part) -> bytes:
        """Of a small blob; from the device where it is here and sound. Raises BackendError."""
        content = self._blobs.read(part.digest)
        if content is None:
            # What has its size and another content would count as fetched.
            self._blobs.sound(part)
            await self.fetch(source, [part], lambda _: None)
            content = self._blobs.read(part.digest) or b""
        return content

    async def fetch(self, source: Source, parts: Iterable[Part], progress: Callable[[Progress], None]) -> None:
        """Afterwards all of these parts are on the device, durably. Raises BackendError."""
        wanted = list({part.digest: part for part in parts}.values())
        missing = [part for part in wanted if not self._blobs.has(part)]
        if not missing:
            return
        meter = _Meter(wanted, self._blobs, progress)
        # The largest first: no connection has it to itself in the end.
        left = deque(sorted(missing, key=lambda part: part.size, reverse=True))

        async def fetch_on() -> None:
            async with source.connection() as registry:
                while left:
                    part = left.popleft()
                    async with self._locks.setdefault(part.digest, asyncio.Lock()):
                        await self._fetch_one(part, registry, meter)

        await together([asyncio.create_task(fetch_on()) for _ in range(min(CONNECTIONS, len(missing)))])
        await in_thread(self._blobs.settle)

    async def _fetch_one(self, part: Part, registry: Registry, meter: "_Meter") -> None:
        wanted = threading.Event()
        wanted.set()
        loop = asyncio.get_running_loop()

        def report(count: int) -> None:
            if meter.worth_telling(part, count):
                loop.call_soon_threadsafe(meter.note, part, count)

        try:
            # One that goes on alone may connect anew after the source was closed.
            await in_thread(lambda: self._blobs.fetch(part, registry, report, wanted), registry.close)
        finally:
            wanted.clear()
        meter.note(part, part.size)


class _Meter:
    """Bytes of all parts together. The count never goes back, though a part may begin anew."""

    def __init__(self, parts: Iterable[Part], blobs: BlobStore, progress: Callable[[Progress], None]) -> None:
        self._have = {part.digest: blobs.begun(part) for part in parts}
        self._total = sum(part.size for part in parts)
        self._progress = progress
        self._told = -1
        self._tell()

    def worth_telling(self, part: Part, count: int) -> bool:
        """Asked in the fetching thread."""
        return count - self._have[part.digest] >= REPORT_EVERY

    def note(self, part: Part, count: int) -> None:
        self._have[part.digest] = max(self._have[part.digest], count)
        self._tell()

    def _tell(self) -> None:
        count = sum(self._have.values())
        if count > self._told:
            self._told = count
            self._progress(Progress(count, self._total))
