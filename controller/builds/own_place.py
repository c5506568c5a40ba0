"""The controller's own machine as a builder host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.builds.builder import ImageBuilder
from controller.builds.emulation import emulated_architectures, own_architecture
from controller.builds.hosts import Abilities
from controller.builds.machine import Machine
from controller.builds.model import BuildFailed

PLATFORMS = {"amd64": "linux/amd64", "arm64": "linux/arm64", "arm": "linux/arm/v7"}


class OwnPlace:
    """Builds in the builder's own storage."""

    address = "local"
    # Housekeeping sees to that.
    wants_rest = False

    def __init__(self, builder: ImageBuilder) -> None:
        self._builder = builder

    async def probe(self) -> Abilities:
        if wrong := await self._builder.probe():
            raise BuildFailed("PodmanUnavailable", wrong, retryable=True)
        native = frozenset({PLATFORMS.get(own_architecture(), "")})
        emulated = frozenset(PLATFORMS[each] for each in await asyncio.to_thread(emulated_architectures))
        # Much for another architecture is made without running anything; a build that has to run something finds out
        # that it can not.
        return Abilities(native, emulated, frozenset(PLATFORMS.values()) - native - emulated)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Machine]:
        yield self._builder.machine
