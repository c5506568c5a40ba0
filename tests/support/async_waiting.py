"""Waiting in an event loop for what should become true, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object], *, seconds: float = 10, why: str = "") -> None:
    """Returns as soon as `condition()` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s{': ' if why else ''}{why}")
        await asyncio.sleep(0.01)


async def until_holds(holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    """Returns as soon as it holds; TimeoutError after that many seconds."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)
