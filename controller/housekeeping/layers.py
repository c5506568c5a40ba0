"""The builder's storage as a cache: layers of earlier builds, and what package managers fetched."""

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from controller.builds.podman import Podman
from controller.housekeeping.plan import DAY, BuildRecord, CachedLayers, Policy, plan_layers

log = structlog.get_logger()
# As `controller.builds.image_build.kept_as` names what a build leaves.
KEPT = re.compile(r"localhost/longshore/build/[^:]+:(?P<build>[^:]+)")


class LayerCache:
    """`busy`: whether a build runs there; then nothing is removed, since a build stands on what was there before."""

    def __init__(self, podman: Podman, busy: Callable[[], bool], packages: Sequence[Path] = ()) -> None:
        """`packages`: further folders that package managers use as caches."""
        self._podman = podman
        self._busy = busy
        self._packages = packages

    async def unneeded(self, builds: list[BuildRecord], policy: Policy, now: float) -> list[str]:
        """Names of the images that would go for their age."""
        old, _ = plan_layers(await self._kept(), builds, policy, now)
        return [each.name for each in old]

    async def tidy(self, builds: list[BuildRecord], policy: Policy, now: float) -> int:
        """Removes what is old, then what is oldest until the rest is small enough, unless a build begins meanwhile.
        How many images it removed."""
        old, young = plan_layers(await self._kept(), builds, policy, now)
        removed = sum([await self._remove(each) for each in old])
        removed += await self._shrink(young, policy)
        oldest_first = await asyncio.to_thread(self._package_caches)
        for used, folder in oldest_first:
            too_large = await asyncio.to_thread(self._size) > policy.cache_bytes
            if (used < now - policy.cache_days * DAY or too_large) and not self._busy():
                # As a whole: what package managers find of a package has to be all of it.
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                log.info("package cache removed", folder=str(folder))
        return removed

    async def _shrink(self, young: list[CachedLayers], policy: Policy) -> int:
        removed = 0
        for each in young:
            if await asyncio.to_thread(self._size) <= policy.cache_bytes or self._busy():
                return removed
            removed += await self._remove(each)
        return removed

    async def _remove(self, image: CachedLayers) -> int:
        if self._busy():
            return 0
        done = await self._podman.run("rmi", image.name)
        if done.returncode == 0:
            log.info("layers removed", image=image.name, build=image.build_id)
        return int(done.returncode == 0)

    async def _kept(self) -> list[CachedLayers]:
        if not self._podman.installed() or not self._podman.storage.exists():
            return []
        listed = await self._podman.run("images", "--format", "json")
        if listed.returncode != 0:
            return []
        names = {name for image in json.loads(listed.stdout or "[]") for name in image.get("Names") or ()}
        return [CachedLayers(name, match["build"]) for name in sorted(names) if (match := KEPT.fullmatch(name))]

    def _package_caches(self) -> list[tuple[float, Path]]:
        """Each with the time of its last use, oldest first."""
        inside = self._podman.cache.iterdir() if self._podman.cache.exists() else ()
        folders = [folder for folder in (*inside, *self._packages) if folder.is_dir()]
        return sorted((last_use(folder), folder) for folder in folders)

    def _size(self) -> int:
        return sum(map(size_below, (self._podman.storage, self._podman.cache, *self._packages)))


def size_below(folder: Path) -> int:
    """Bytes on disk, each file once, nothing of other file systems: layers that are mounted lie there once more."""
    try:
        device = folder.stat().st_dev
    except FileNotFoundError:
        return 0
    seen: set[int] = set()
    total = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _device(Path(parent, name)) == device]
        for name in files:
            try:
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - a million of them
            except FileNotFoundError:
                continue
            if status.st_nlink == 1 or status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


def _device(path: Path) -> int:
    try:
        return path.lstat().st_dev
    except FileNotFoundError:
        return -1


def last_use(folder: Path) -> float:
    """When something below was last read or written, in seconds since the epoch; as exact as the mount says."""
    newest = folder.stat().st_mtime
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                status = Path(parent, name).lstat()
                newest = max(newest, status.st_mtime, status.st_atime)
    return newest
