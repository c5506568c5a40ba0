"""The builder's storage as a cache: bases, layers of earlier builds, and what package managers fetched."""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog

from controller.builds.base_uses import BaseUses
from controller.builds.podman import Podman
from controller.builds.pulled_bases import PulledBases
from controller.housekeeping.package_caches import PackageCache, PackageCaches
from controller.housekeeping.plan import DAY, BuildRecord, CachedLayers, Policy, plan_layers
from controller.housekeeping.sizes import StorageSize

log = structlog.get_logger()
# As `controller.builds.image_build.kept_as` names what a build leaves; behind a dot is a part of the build.
KEPT = re.compile(r"localhost/longshore/build/[^:]+:(?P<build>[^:.]+)(\.[^:]+)?")


class LayerCache:
    """`busy`: whether a build runs there; then nothing is removed, since a build stands on what was there before."""

    def __init__(self, podman: Podman, busy: Callable[[], bool], packages: Sequence[Path] = ()) -> None:
        """`packages`: further folders that package managers use as caches."""
        self._podman = podman
        self._busy = busy
        self._uses = BaseUses(podman.folder)
        self._pulled = PulledBases(podman)
        self._packages = PackageCaches(podman.cache, packages)

    async def unneeded(self, builds: list[BuildRecord], policy: Policy, now: float) -> list[str]:
        """Names of the images that would go for their age."""
        old, _ = plan_layers(self._cached(await self._images()), builds, policy, now)
        return [each.name for each in old]

    async def tidy(self, builds: list[BuildRecord], policy: Policy, now: float) -> int:
        """Removes what is old, then what was not used for longest until the rest is small enough, unless a build
        begins meanwhile. How many images it removed."""
        await asyncio.to_thread(self._packages.finish)
        images = await self._images()
        await asyncio.to_thread(self._uses.keep, {image["Id"] for image in images if not _left_by_build(image)})
        old, young = plan_layers(self._cached(images), builds, policy, now)
        removed = sum([await self._remove(each) for each in old])
        storage = await asyncio.to_thread(StorageSize, self._podman.storage)
        caches = await asyncio.to_thread(self._packages.found)
        removed += await self._shrink(young, storage, sum(cache.bytes for cache in caches), policy)
        await self._remove_packages(caches, await asyncio.to_thread(storage.bytes), policy, now)
        await asyncio.to_thread(self._pulled.forget_removed)
        return removed

    async def _shrink(self, young: list[CachedLayers], storage: StorageSize, packages: int, policy: Policy) -> int:
        removed = 0
        for each in young:
            if await asyncio.to_thread(storage.bytes) + packages <= policy.cache_bytes:
                break
            removed += await self._remove(each)
        return removed

    async def _remove_packages(self, caches: list[PackageCache], storage: int, policy: Policy, now: float) -> None:
        """Where the storage alone is too large, they are not what fills the disk."""
        packages = sum(cache.bytes for cache in caches)
        for cache in caches:
            too_large = storage <= policy.cache_bytes < storage + packages
            if (cache.last_used < now - policy.cache_days * DAY or too_large) and not self._busy():
                await self._packages.remove(cache)
                packages -= cache.bytes
                log.info("package cache removed", folder=str(cache.folder), bytes=cache.bytes)

    async def _remove(self, image: CachedLayers) -> int:
        if self._busy():
            return 0
        done = await self._podman.run("rmi", image.name)
        if done.returncode == 0:
            log.info("image removed from the builder", image=image.name, build=image.build_id)
        return int(done.returncode == 0)

    def _cached(self, images: Iterable[dict[str, Any]]) -> list[CachedLayers]:
        return [
            CachedLayers(name, match["build"])
            if (match := KEPT.fullmatch(name))
            else CachedLayers(name, "", self._uses.last(image["Id"]))
            for image in images
            for name in image.get("Names") or [image["Id"]]
        ]

    async def _images(self) -> list[dict[str, Any]]:
        """Of the storage, without those on which only others of it stand."""
        if not self._podman.installed() or not self._podman.storage.exists():
            return []
        listed = await self._podman.run("images", "--format", "json")
        if listed.returncode != 0:
            return []
        images: list[dict[str, Any]] = json.loads(listed.stdout or "[]")
        return sorted(images, key=lambda image: (image.get("Names") or [""], image["Id"]))


def _left_by_build(image: dict[str, Any]) -> bool:
    return any(KEPT.fullmatch(name) for name in image.get("Names") or ())
