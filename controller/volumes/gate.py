"""Pushes and what must not happen while one is under way: the registry frees what no manifest names, and a manifest
that was pushed comes last."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class PushGate:
    """Pushes go on side by side. Whoever wants to be alone waits for those that have begun, and holds up others."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._pushes = 0
        self._closed = False

    @asynccontextmanager
    async def push(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._pushes += 1
        try:
            yield
        finally:
            async with self._changed:
                self._pushes -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No push is under way in the block."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._closed = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._pushes)
            yield
        finally:
            async with self._changed:
                self._closed = False
                self._changed.notify_all()

    def guarding(self, work: Callable[[], Awaitable[None]] | None) -> Callable[[], Awaitable[None]] | None:
        """The same work, done alone; None for None."""
        if work is None:
            return None

        async def guarded() -> None:
            async with self.alone():
                await work()

        return guarded
