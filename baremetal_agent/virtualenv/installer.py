"""From a bundle's name to a release that can be started, and back: what `prepare` and `prune` promise."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import structlog

from baremetal_agent.virtualenv.bundle import Manifest, parse_manifest
from baremetal_agent.virtualenv.environments import Environments
from baremetal_agent.virtualenv.fetching import Fetcher
from baremetal_agent.virtualenv.packages import Packages
from baremetal_agent.virtualenv.releases import Release, Releases
from edge_agent.runtime.backend import BackendError, Progress
from edge_agent.runtime.blobs import BlobStore
from edge_agent.runtime.disk import disk_told
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.fetching import Credentials, Source
from edge_agent.runtime.model import Artifact
from edge_agent.runtime.platforms import check_platform, os_and_architecture
from edge_agent.runtime.preparing import Preparing
from edge_agent.runtime.together import together

log = structlog.get_logger()


class Installer:
    """Bundles below `folder`, which is this agent's own. For one event loop."""

    def __init__(
        self, folder: Path, credentials: Credentials, authority: Path | None, packages: Packages, boot: str
    ) -> None:
        self._folder = folder
        self._blobs = BlobStore(folder / "blobs")
        self._fetcher = Fetcher(self._blobs, credentials, authority)
        self._environments = Environments(folder, self._blobs, boot)
        self._releases = Releases(folder, self._environments, self._blobs, boot)
        self._packages = packages
        self._locks: dict[str, asyncio.Lock] = {}
        self._preparing = Preparing()
        self._settling: set[asyncio.Task[None]] = set()

    def find(self, artifact: Artifact) -> Release | None:
        """The release, if it is here and whole."""
        return self._releases.find(artifact)

    async def prepare(self, artifact: Artifact, progress: Callable[[Progress], None]) -> None:
        """Afterwards `find` has it. What a break has left is used. Raises BackendError."""
        check_platform(artifact.reference, *os_and_architecture(artifact.platform))
        async with self._preparing.of(artifact.digest), self._locks.setdefault(artifact.digest, asyncio.Lock()):
            if self.find(artifact) is None:
                with disk_told(artifact.reference, self._folder):
                    await self._install(artifact, progress)
                log.info("bundle_installed", artifact=artifact.reference)
        self._settle_soon(artifact)

    async def _install(self, artifact: Artifact, progress: Callable[[Progress], None]) -> None:
        with contextlib.closing(self._fetcher.source(artifact.repository)) as source:
            manifest, description = await self._fetcher.read(source, artifact)
            check_platform(artifact.reference, *os_and_architecture(description.platform))
            # Before hundreds of megabytes come for nothing.
            await self._packages.require(artifact.reference, description.apt)
            self._fetcher.require_room(artifact, self._folder, manifest.parts)
            reach("fetch.begun")
            fetching = asyncio.create_task(self._fetch(source, manifest, progress))
            made = self._environments.ensure(artifact.reference, description, manifest.wheels, fetching)
            making = asyncio.create_task(made)
            await together([fetching, making])
        reach("fetch.unpacked")
        await self._releases.make(artifact, manifest, description, making.result())

    async def _fetch(self, source: Source, manifest: Manifest, progress: Callable[[Progress], None]) -> None:
        await self._fetcher.fetch(source, manifest.parts, progress)
        reach("fetch.arrived")

    async def prune(self, keep: frozenset[str]) -> None:
        """Nothing is left of bundles whose digest is not in `keep`, but of what is being prepared."""
        async with self._preparing.pruning():
            with disk_told("bundles", self._folder):
                await self._prune(keep | self._preparing.digests)

    async def _prune(self, keep: frozenset[str]) -> None:
        environments = await self._releases.keep_only(keep)
        manifests = {digest: self._manifest(digest) for digest in keep}
        parts = [part for manifest in manifests.values() if manifest for part in manifest.parts]
        if not self._preparing.digests:
            self._releases.sweep()
            await self._environments.keep_only(environments, parts)
            self._blobs.keep_only(keep | {part.digest for part in parts})

    def _manifest(self, digest: str) -> Manifest | None:
        content = self._blobs.read(digest)
        try:
            return parse_manifest(digest, content) if content is not None else None
        except BackendError:
            return None

    def _settle_soon(self, artifact: Artifact) -> None:
        """What was made is used at once; until the disk has it, a power cut would have it made anew."""
        task = asyncio.create_task(self._settle(artifact))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, artifact: Artifact) -> None:
        try:
            await self._releases.settle(artifact)
        except OSError as error:
            log.warning("bundle_not_settled", artifact=artifact.reference, error=str(error))

    async def settled(self) -> None:
        """Afterwards what was prepared outlives a power cut."""
        await asyncio.gather(*self._settling)

    async def close(self) -> None:
        for task in self._settling:
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)
