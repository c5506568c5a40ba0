"""The controller's own machine as a builder host."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.builds.builder import ImageBuilder
from controller.builds.emulation import own_architecture
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
        own = PLATFORMS.get(own_architecture(), "")
        # Much for another architecture is made without running anything; a build that has to run something finds out
        # whether it can.
        return Abilities(frozenset({own}), frozenset(PLATFORMS.values()) - {own})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Machine]:
        yield self._builder.machine
