"""The builder's storage as a cache: layers of earlier builds, and what package managers fetched."""

import asyncio
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import structlog

from controller.builds.podman import Podman
from controller.housekeeping.plan import DAY, BuildRecord, CachedLayers, Policy, plan_layers

log = structlog.get_logger()
# As `controller.builds.image_build.kept_as` names what a build leaves.
KEPT = re.compile(r"localhost/longshore/build/[^:]+:(?P<build>[^:]+)")


class LayerCache:
    """`busy`: whether a build runs there; then nothing is removed, since a build stands on what was there before."""

    def __init__(self, podman: Podman, busy: Callable[[], bool]) -> None:
        self._podman = podman
        self._busy = busy

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
        if not self._busy():
            await asyncio.to_thread(_remove_old_files, self._podman.cache, now - policy.cache_days * DAY)
        return removed

    async def _shrink(self, young: list[CachedLayers], policy: Policy) -> int:
        removed = 0
        for each in young:
            if await asyncio.to_thread(self._size) <= policy.cache_bytes or self._busy():
                return removed
            removed += await self._remove(each)
        if not self._busy() and await asyncio.to_thread(self._size) > policy.cache_bytes:
            log.info("package caches are emptied", folder=str(self._podman.cache))
            await asyncio.to_thread(_remove_old_files, self._podman.cache, float("inf"))
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

    def _size(self) -> int:
        return sum(map(size_below, (self._podman.storage, self._podman.cache)))


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


def _remove_old_files(folder: Path, before: float) -> None:
    """Files below that were neither read nor written since; empty folders stay."""
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent, name)
            try:
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and max(status.st_atime, status.st_mtime) < before:
                    path.unlink()
            except FileNotFoundError:
                continue
