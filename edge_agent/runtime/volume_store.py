"""Versions of project volumes on this device: fetched by digest, unpacked once, shared by all who mount them.

For both backends, which show them read-only to their instances.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from edge_agent.runtime.backend import ArtifactDamaged, BackendError, Progress
from edge_agent.runtime.blobs import BlobStore
from edge_agent.runtime.disk import disk_told, require_room
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.fetching import Credentials, PartFetcher, Source
from edge_agent.runtime.model import ProjectVolume
from edge_agent.runtime.preparing import Preparing
from edge_agent.runtime.registry import failed
from edge_agent.runtime.threads import in_thread
from edge_agent.runtime.unpacking import DamagedLayer, UnsafeLayer
from edge_agent.runtime.volume_manifest import VolumeManifest, parse_volume, unpacked_bytes
from edge_agent.runtime.volume_trees import VolumeTrees

log = structlog.get_logger()


class VolumeStore:
    """Below `folder`, which is one agent's own. For one event loop. `credentials` and `authority`: the registry's."""

    def __init__(self, folder: Path, credentials: Credentials, authority: Path | None) -> None:
        self._folder = folder
        self._blobs = BlobStore(folder / "blobs")
        self._trees = VolumeTrees(folder / "trees", self._blobs)
        self._fetcher = PartFetcher(self._blobs, credentials, authority)
        self._locks: dict[str, asyncio.Lock] = {}
        self._preparing = Preparing()

    def places(self, volumes: Iterable[ProjectVolume]) -> list[tuple[ProjectVolume, Path]]:
        """Where the files of each volume are. Raises ArtifactDamaged where one has to be prepared (again)."""
        found = []
        for volume in volumes:
            files = self._trees.find(volume.digest)
            if files is None:
                raise ArtifactDamaged(f"the files of {volume.reference} are not whole on this device; fetched again")
            found.append((volume, files))
        return found

    async def prepare(self, volumes: Sequence[ProjectVolume], progress: Callable[[Progress], None]) -> None:
        """Afterwards `places` has them, also after a power cut. What a break has left is used. Raises BackendError."""
        done, total = 0, sum(volume.size for volume in volumes)
        for volume in volumes:
            before = done

            def told(now: Progress, before: int = before) -> None:
                progress(Progress(min(total, before + now.fetched_bytes), total))

            await self._ensure(volume, told)
            done += volume.size

    async def _ensure(self, volume: ProjectVolume, progress: Callable[[Progress], None]) -> None:
        async with self._preparing.of(volume.digest), self._locks.setdefault(volume.digest, asyncio.Lock()):
            with disk_told(volume.reference, self._folder):
                if await in_thread(lambda: self._trees.find(volume.digest)) is None:
                    await self._install(volume, progress)
                    log.info("volume_installed", volume=volume.reference)

    async def _install(self, volume: ProjectVolume, progress: Callable[[Progress], None]) -> None:
        damaged = await in_thread(lambda: self._trees.is_damaged(volume.digest))
        with contextlib.closing(self._fetcher.source(volume.repository)) as source:
            manifest, unpacked = await self._read(source, volume)
            if damaged:
                await in_thread(lambda: [self._blobs.sound(part) for part in manifest.parts])
            require_room(volume.reference, self._folder, self._needed(manifest, unpacked))
            reach("fetch.begun")
            await self._fetcher.fetch(source, manifest.parts, progress)
            reach("fetch.arrived")
        try:
            await in_thread(lambda: self._trees.make(volume.digest, manifest))
        except UnsafeLayer as error:
            raise BackendError("InvalidVolume", f"cannot use {volume.reference}: {error}", retryable=False) from error
        except DamagedLayer as error:
            await in_thread(lambda: [self._blobs.sound(part) for part in manifest.groups])
            raise failed(volume.reference, f"it is damaged on this device and is fetched anew: {error}") from error
        reach("fetch.unpacked")

    async def _read(self, source: Source, volume: ProjectVolume) -> tuple[VolumeManifest, int]:
        """What the version is, and how large its files are together."""
        manifest = parse_volume(volume.reference, await self._fetcher.manifest(source, volume.digest))
        return manifest, unpacked_bytes(volume.reference, await self._fetcher.content(source, manifest.config))

    def _needed(self, manifest: VolumeManifest, unpacked: int) -> int:
        """Bytes that have to be free: what is lacking, and what becomes of archives and programs beside it."""
        lacking = sum(part.size - self._blobs.begun(part) for part in manifest.parts)
        linked = sum(large.part.size for large in manifest.large if not large.executable)
        return lacking + max(0, unpacked - linked)

    async def prune(self, keep: frozenset[str]) -> None:
        """Nothing is left of versions whose digest is not in `keep`, but of what is being prepared."""
        async with self._preparing.pruning():
            kept = keep | self._preparing.digests
            with disk_told("volumes", self._folder):
                await in_thread(lambda: self._trees.keep_only(kept))
                if not self._preparing.digests:
                    await in_thread(lambda: self._tidy(kept))

    def _tidy(self, kept: frozenset[str]) -> None:
        self._trees.sweep()
        manifests = [self._known(digest) for digest in kept]
        parts = {part.digest for manifest in manifests if manifest is not None for part in manifest.parts}
        self._blobs.keep_only(kept | parts)

    def _known(self, digest: str) -> VolumeManifest | None:
        content = self._blobs.read(digest)
        try:
            return parse_volume(digest, content) if content is not None else None
        except BackendError:
            return None


class Stages:
    """Progress of an artifact and then of volumes, as of one thing; `later`: bytes of the volumes."""

    def __init__(self, progress: Callable[[Progress], None], later: int) -> None:
        self._progress = progress
        self._later = later
        self._before = 0

    def artifact(self, now: Progress) -> None:
        self._before = now.total_bytes
        self._progress(Progress(now.fetched_bytes, now.total_bytes + self._later if now.total_bytes else 0))

    def volumes(self, now: Progress) -> None:
        self._progress(Progress(self._before + now.fetched_bytes, self._before + self._later))
