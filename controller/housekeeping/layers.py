"""The builder's storage as a cache: bases, layers of earlier builds, and what package managers fetched."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import structlog

from controller.builds.base_uses import BaseUses
from controller.builds.podman import Podman
from controller.builds.pulled_bases import PulledBases
from controller.housekeeping.package_caches import PackageCache, PackageCaches
from controller.housekeeping.plan import DAY, BuildRecord, CachedLayers, Policy, plan_layers
from controller.housekeeping.sizes import StorageSize
from controller.reserve import Reserve

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
        self._reserve = Reserve(podman.folder / "reserve")
        self._package_folders = tuple(packages)
        self._packages = PackageCaches(podman.cache, packages)
        # Whether something that was to go stayed the last time, since a build ran.
        self.hindered = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where all of it lies."""
        return (self._podman.storage, self._podman.cache, *self._package_folders)

    async def unneeded(self, builds: Sequence[BuildRecord], policy: Policy, now: float) -> list[str]:
        """Names of the images that would go for their age."""
        old, _ = plan_layers(self._cached(await self._images()), builds, policy, now)
        return [each.name for each in old]

    async def tidy(self, builds: Sequence[BuildRecord], policy: Policy, now: float) -> int:
        """Removes what is old, then what was not used for longest until the rest is small enough, unless a build
        begins meanwhile. How many images it removed."""
        self.hindered = False
        await asyncio.to_thread(self._packages.finish)
        images = await self._images()
        await asyncio.to_thread(self._uses.keep, {image["Id"] for image in images if not _left_by_build(image)})
        old, young = plan_layers(self._cached(images), builds, policy, now)
        removed = sum([await self._remove(each) for each in old])
        storage = await asyncio.to_thread(StorageSize, self._podman.storage)
        caches = await asyncio.to_thread(self._packages.found)
        removed += await self._shrink(young, storage, sum(cache.bytes for cache in caches), policy)
        await self._shrink_packages(caches, await asyncio.to_thread(storage.bytes), policy, now)
        await asyncio.to_thread(self._pulled.forget_removed)
        await asyncio.to_thread(self._reserve.fill)
        return removed

    async def make_room(self, builds: Sequence[BuildRecord], lacks: Callable[[Path], bool]) -> None:
        """Removes images and package caches, however young, oldest use first, as long as their disk `lacks` room and no
        build begins meanwhile."""
        # What others stand on goes only after them, so once more while that helps.
        while await self._make_some_room(builds, lacks) or await self._make_first_room(builds, lacks):
            await asyncio.to_thread(self._pulled.forget_removed)

    async def _make_first_room(self, builds: Sequence[BuildRecord], lacks: Callable[[Path], bool]) -> int:
        """As below, of one thing: to remove it, or even to list what there is, takes some room."""
        # Asked before there is the room that is lent for it.
        short = await asyncio.to_thread(lambda: [folder for folder in self.folders if lacks(folder)])
        if not short:
            return 0
        with self._reserve.released():
            return await self._make_some_room(builds, lambda place: any(map(place.is_relative_to, short)), most=1)

    async def _make_some_room(
        self, builds: Sequence[BuildRecord], lacks: Callable[[Path], bool], most: float = inf
    ) -> int:
        """How many things went."""
        images, caches = await self._removable(builds), await asyncio.to_thread(self._packages.found)
        things: list[CachedLayers | PackageCache] = [*images, *caches]
        removed = 0
        for each in sorted(things, key=lambda each: each.last_used):
            place = each.folder if isinstance(each, PackageCache) else self._podman.storage
            if removed < most and await asyncio.to_thread(lacks, place):
                removed += await (self._remove_cache(each) if isinstance(each, PackageCache) else self._remove(each))
        return removed

    async def _removable(self, builds: Sequence[BuildRecord]) -> list[CachedLayers]:
        """All images but those of builds that have not ended, oldest use first."""
        _, images = plan_layers(self._cached(await self._images()), builds, Policy(cache_days=inf), time.time())
        return images

    async def _shrink(self, young: list[CachedLayers], storage: StorageSize, packages: int, policy: Policy) -> int:
        removed = 0
        for each in young:
            if await asyncio.to_thread(storage.bytes) + packages <= policy.cache_bytes:
                break
            removed += await self._remove(each)
        return removed

    async def _shrink_packages(self, caches: list[PackageCache], storage: int, policy: Policy, now: float) -> None:
        """Where the storage alone is too large, they are not what fills the disk."""
        packages = sum(cache.bytes for cache in caches)
        for cache in caches:
            too_large = storage <= policy.cache_bytes < storage + packages
            if cache.last_used < now - policy.cache_days * DAY or too_large:
                packages -= cache.bytes * await self._remove_cache(cache)

    async def _remove_cache(self, cache: PackageCache) -> int:
        """How many went: 0 while a build runs, or where the disk has not even the room for moving it aside."""
        if self._busy():
            self.hindered = True
            return 0
        try:
            await self._packages.remove(cache)
        except OSError as error:
            log.warning("package cache cannot be removed", folder=str(cache.folder), error=str(error))
            return 0
        log.info("package cache removed", folder=str(cache.folder), bytes=cache.bytes)
        return 1

    async def _remove(self, image: CachedLayers) -> int:
        """How many went: 0 while a build runs, or another image stands on this one."""
        if self._busy():
            self.hindered = True
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
