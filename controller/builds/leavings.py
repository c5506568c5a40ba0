"""What builds leave in a storage that nobody wants: removed when no build runs there."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from controller.builds.podman import Podman


class Leavings:
    """Of one storage. `begin` before each build, `end` after it."""

    def __init__(self) -> None:
        self._running = 0
        # Another build may stand on such an image between two of its steps; a killed build's containers look like
        # those of a running one.
        self._unwanted: list[str] = []
        self._untidy = False
        self._removing = asyncio.Lock()

    @property
    def building(self) -> bool:
        """Whether a build runs there."""
        return self._running > 0

    @property
    def untidy(self) -> bool:
        """Whether something unwanted waits until no build runs."""
        return self._untidy or bool(self._unwanted)

    async def begin(self) -> None:
        """Waits while something is removed: what a build has made would look like what another one left."""
        async with self._removing:
            self._running += 1

    def unwanted(self, images: Iterable[str]) -> None:
        """Images, in the order in which they were made."""
        self._unwanted += images

    def killed(self) -> None:
        """A build had to be killed: containers and mounts may be there."""
        self._untidy = True

    async def end(self, podman: Podman, remove_leftovers: Callable[[], Awaitable[None]]) -> None:
        """Afterwards nothing unwanted is there, unless another build runs: then its end sees to it."""
        self._running -= 1
        async with self._removing:
            if self._running:
                return
            if self._untidy:
                self._untidy = False
                await remove_leftovers()
            unwanted, self._unwanted = self._unwanted, []
            for image in reversed(unwanted):
                # Refused for an image that another one stands on, which is as it should be.
                await podman.run("rmi", "--no-prune", image)
