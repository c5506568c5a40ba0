"""Bundles on their way from the registry to this device: only the parts that are lacking, and those from where a break
left them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from pathlib import Path

from baremetal_agent.virtualenv.blobs import BlobStore
from baremetal_agent.virtualenv.bundle import Description, Manifest, Part, parse_description, parse_manifest
from edge_agent.runtime.backend import Progress
from edge_agent.runtime.disk import require_room
from edge_agent.runtime.model import Artifact
from edge_agent.runtime.registry import Registry
from edge_agent.runtime.threads import in_thread

Credentials = Callable[[], Awaitable[tuple[str, str]]]
# Installed, packages take about so many times the size of their wheels; with the wheels themselves one more.
GROWTH = 3
REPORT_EVERY = 512 * 1024


class Fetcher:
    """Fetches into `blobs`. A part that two ask for at once is fetched once."""

    def __init__(self, blobs: BlobStore, credentials: Credentials, authority: Path | None) -> None:
        self._blobs = blobs
        self._credentials = credentials
        self._authority = authority
        self._locks: dict[str, asyncio.Lock] = {}

    async def read(self, artifact: Artifact) -> tuple[Manifest, Description]:
        """What the bundle is. From the device where that is known here, so that it works without a network."""
        manifest = parse_manifest(artifact.reference, await self._manifest(artifact))
        config = manifest.config
        content = self._blobs.read(config.digest)
        if content is None:
            await self.fetch(artifact, [config], lambda _: None)
            content = self._blobs.read(config.digest) or b""
        return manifest, parse_description(artifact.reference, content)

    async def fetch(self, artifact: Artifact, parts: Iterable[Part], progress: Callable[[Progress], None]) -> None:
        """Afterwards all of these parts are on the device. Raises BackendError."""
        wanted = list({part.digest: part for part in parts}.values())
        missing = [part for part in wanted if not self._blobs.has(part)]
        if not missing:
            return
        meter = _Meter(wanted, self._blobs, progress)
        with closing(await self._registry(artifact)) as registry:
            for part in missing:
                async with self._locks.setdefault(part.digest, asyncio.Lock()):
                    await self._fetch_one(part, registry, meter)

    def require_room(self, artifact: Artifact, folder: Path, parts: Iterable[Part]) -> None:
        """Raises "DiskFull" where what is lacking of these parts, and what will be made of it, cannot fit."""
        lacking = sum(part.size - self._blobs.begun(part) for part in parts)
        if lacking:
            require_room(artifact.reference, folder, lacking * (1 + GROWTH))

    async def _manifest(self, artifact: Artifact) -> bytes:
        content = self._blobs.read(artifact.digest)
        if content is None:
            with closing(await self._registry(artifact)) as registry:
                content = await in_thread(lambda: registry.manifest(artifact.digest))
            self._blobs.add(artifact.digest, content)
        return content

    async def _registry(self, artifact: Artifact) -> Registry:
        return Registry(artifact.repository, await self._credentials(), self._authority)

    async def _fetch_one(self, part: Part, registry: Registry, meter: "_Meter") -> None:
        wanted = threading.Event()
        wanted.set()
        loop = asyncio.get_running_loop()

        def report(count: int) -> None:
            if meter.worth_telling(part, count):
                loop.call_soon_threadsafe(meter.note, part, count)

        try:
            await in_thread(lambda: self._blobs.fetch(part, registry, report, wanted))
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
