"""Hears of the end of containers from the kernel: at once, and with no Podman process running."""

import asyncio
import os

from edge_agent.podman import machine
from edge_agent.podman.container import Container
from edge_agent.runtime.bell import Bell


class DeathWatch:
    """Rings `bell` when a watched process ends. For one event loop."""

    def __init__(self) -> None:
        self.bell = Bell()
        self._watched: dict[int, str] = {}

    def add(self, container: Container) -> None:
        """Watches the container's process; a second call changes nothing. Rings at once if it has ended."""
        if container.id in self._watched.values():
            return
        process = machine.open_process(container.pid, container.id)
        if process is None:
            self.bell.ring()
            return
        self._watched[process] = container.id
        asyncio.get_running_loop().add_reader(process, self._ended, process)

    def _ended(self, process: int) -> None:
        self._drop(process)
        self.bell.ring()

    def _drop(self, process: int) -> None:
        if self._watched.pop(process, None) is not None:
            asyncio.get_running_loop().remove_reader(process)
            os.close(process)

    def close(self) -> None:
        for process in list(self._watched):
            self._drop(process)


async def wait_for_end(process: int, seconds: float) -> bool:
    """Whether the process behind the pidfd ended within that time."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # A pidfd of its own: the loop keeps one reader for a descriptor.
    copy = os.dup(process)
    loop.add_reader(copy, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(copy)
        os.close(copy)
    return True
