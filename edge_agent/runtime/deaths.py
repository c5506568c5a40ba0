"""Hears of the end of instances from the kernel: at once, and with no other process running."""

import asyncio
import os
from collections.abc import Callable

from edge_agent.runtime.bell import Bell


class DeathWatch:
    """Rings `bell` when a watched process ends. For one event loop."""

    def __init__(self) -> None:
        self.bell = Bell()
        self._watched: dict[int, str] = {}

    def add(self, instance: str, open_process: Callable[[], int | None]) -> None:
        """Watches the instance's process, of which `open_process` gives a pidfd, or None if it has ended: then this
        rings at once. A second call for one instance changes nothing."""
        if instance in self._watched.values():
            return
        process = open_process()
        if process is None:
            self.bell.ring()
            return
        self._watched[process] = instance
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


async def wait_for_end(process: int, seconds: float | None) -> bool:
    """Whether the process behind the pidfd ended within that time; None waits for ever."""
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
