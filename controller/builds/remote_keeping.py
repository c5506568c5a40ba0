"""Keeps a builder host's disk in order, by the policy of this machine's: only what this controller brought there goes,
and only while it builds nothing there."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf

import structlog

from controller.builds.machine import HostLost
from controller.builds.model import BuildFailed
from controller.builds.podman import Podman
from controller.builds.remote_images import exists
from controller.builds.remote_uses import HostUses, Kind, Use
from controller.builds.sweeping import forget_caches, measure

log = structlog.get_logger()
MIB = 2**20
DAY = 86400.0
# So often it is looked how large all of it is: each file is looked at.
SIZE_EVERY = 3600.0
# What is old and cannot go yet, since something younger stands on it, is tried again after so long.
LATER = DAY

# The id of an image there that this controller sent and no user chose. Raises BuildFailed.
FindTool = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class HostPolicy:
    """Seconds since the last use, bytes of all images there, and bytes that have to be free there before a build.
    `removes`: whether anything goes at all."""

    removes: bool = True
    keep_seconds: float = 14 * DAY
    keep_bytes: int = 50 * 2**30
    min_free_bytes: int = 0


@dataclass(frozen=True)
class HostFacts:
    """`storage`: the folder of the images; `free_bytes`: on its disk, None where Podman does not tell."""

    architecture: str
    storage: str
    free_bytes: int | None


async def ask(podman: Podman, address: str) -> HostFacts:
    """What the host says of itself. Raises HostLost."""
    told = await podman.run("info", "--format", "json")
    try:
        info = json.loads(told.stdout)
        store = info["store"]
        sizes = store.get("graphRootAllocated"), store.get("graphRootUsed")
        free = None if None in sizes else sizes[0] - sizes[1]
        return HostFacts(info["host"]["arch"], store["graphRoot"], free)
    except (ValueError, KeyError, TypeError) as error:
        raise HostLost(f"{address} does not say what it is: {told.stderr.strip()[-300:]}") from error


class HostKeeper:
    """Of one host. Every call is for a moment in which this controller builds nothing there, and raises HostLost."""

    def __init__(self, address: str, uses: HostUses, policy: HostPolicy) -> None:
        self._address = address
        self._uses = uses
        self._policy = policy
        self._measured = -inf

    def due(self) -> list[Use]:
        """What is to go for its age. May be asked at any time."""
        before = time.time() - self._policy.keep_seconds
        return [use for use in self._uses.all() if use.last_used < before and self._policy.removes]

    async def tidy(self, podman: Podman, tool: FindTool) -> None:
        """Removes what is old, then what was not used for longest until the rest is small enough."""
        for use in await asyncio.to_thread(self.due):
            if not await self._remove(podman, use, tool):
                later = time.time() - self._policy.keep_seconds + LATER
                await asyncio.to_thread(self._uses.put_off, use, later)
        noted = await asyncio.to_thread(self._uses.all)
        if noted and self._policy.removes and time.monotonic() - self._measured > SIZE_EVERY:
            self._measured = time.monotonic()
            await self._shrink(podman, tool)

    async def make_room(self, podman: Podman, tool: FindTool) -> None:
        """Removes what was not used for longest as long as the disk has no room."""
        if self._policy.removes:
            await self._remove_while(lambda: self._lacks_room(podman), podman, tool)

    async def require_room(self, podman: Podman) -> None:
        """Raises BuildFailed where the disk has no room for another build. May be asked at any time."""
        free = (await ask(podman, self._address)).free_bytes
        if free is not None and free < self._policy.min_free_bytes:
            raise BuildFailed(
                "DiskNearlyFull",
                f"its disk is nearly full: {free // MIB} MiB are free, {-(-self._policy.min_free_bytes // MIB)} MiB "
                "have to be before another build begins there; free space there, or lower min_free_mib",
                retryable=True,
            )

    async def _remove_while(self, wanted: Callable[[], Awaitable[bool]], podman: Podman, tool: FindTool) -> None:
        left, before = await asyncio.to_thread(self._uses.all), inf
        # What others stand on goes only after them, so once more while that helps.
        while len(left) < before:
            before = len(left)
            for use in left:
                if not await wanted():
                    return
                await self._remove(podman, use, tool)
            left = await asyncio.to_thread(self._uses.all)

    async def _remove(self, podman: Podman, use: Use, tool: FindTool) -> bool:
        """Whether it is gone."""
        if not await (self._remove_cache(podman, use.name, tool) if use.kind is Kind.CACHE else _rmi(podman, use.name)):
            return False
        await asyncio.to_thread(self._uses.forget, use)
        log.info("removed from a builder host", host=self._address, kind=use.kind.value, name=use.name)
        return True

    async def _remove_cache(self, podman: Podman, name: str, tool: FindTool) -> bool:
        # Later versions of Buildah name the folder by a part of the name's digest.
        names = (name, hashlib.sha256(name.encode()).hexdigest()[:16])
        return await _run(podman, tool, lambda image: forget_caches(image, names)) is not None

    async def _lacks_room(self, podman: Podman) -> bool:
        free = (await ask(podman, self._address)).free_bytes
        return free is not None and free < self._policy.min_free_bytes

    async def _shrink(self, podman: Podman, tool: FindTool) -> None:
        facts = await ask(podman, self._address)
        if facts.free_bytes is None:
            # Whether what goes makes a difference could not be seen: all would go.
            return
        # What Podman says of sizes counts shared layers several times.
        told = await _run(podman, tool, lambda image: measure(image, facts.storage))
        size = re.match(r"(\d+)", told or "")
        if size is None:
            return
        begin, before = facts.free_bytes, int(size[1]) * 1024

        async def too_large() -> bool:
            now = (await ask(podman, self._address)).free_bytes
            return now is not None and before - (now - begin) > self._policy.keep_bytes

        await self._remove_while(too_large, podman, tool)


async def _rmi(podman: Podman, image: str) -> bool:
    """Whether it is gone."""
    await podman.run("rmi", "-i", image)
    return not await exists(podman, image)


async def _run(podman: Podman, tool: FindTool, command: Callable[[str], Sequence[str]]) -> str | None:
    """What a program prints that looks after the host; None where it fails, as on a disk that takes no image for it."""
    try:
        done = await podman.run(*command(await tool()))
    except HostLost:
        raise
    except BuildFailed as failure:
        log.warning("a builder host cannot be looked after", error=failure.message)
        return None
    return done.stdout if done.returncode == 0 else None
