"""The controller's own machine as a builder host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.builds.builder import ImageBuilder
from controller.builds.emulation import own_architecture, runnable_architectures
from controller.builds.hosts import Abilities
from controller.builds.machine import Machine
from controller.builds.model import BuildFailed

PLATFORMS = {"amd64": "linux/amd64", "arm64": "linux/arm64", "arm": "linux/arm/v7"}


class OwnPlace:
    """Builds in the builder's own storage."""

    address = "local"

    def __init__(self, builder: ImageBuilder) -> None:
        self._builder = builder

    async def probe(self) -> Abilities:
        if wrong := await self._builder.probe():
            raise BuildFailed("PodmanUnavailable", wrong, retryable=True)
        own = own_architecture()
        others = await asyncio.to_thread(runnable_architectures) - {own}
        return Abilities(_platforms({own}), _platforms(others))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Machine]:
        yield self._builder.machine


def _platforms(architectures: set[str]) -> frozenset[str]:
    return frozenset(PLATFORMS[name] for name in architectures if name in PLATFORMS)
