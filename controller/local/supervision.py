"""Keeps a server beside the controller running: whatever ends it, it is started again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TypeVar

import structlog

from controller.local.process import StartFailed
from controller.local.server import LocalServer

log = structlog.get_logger()
# Seconds before it is started again, the first time and at most.
FIRST, LONGEST = 0.2, 30.0
# One that has run for so long did not end because of how it was started.
STEADY = 60.0
# So long it may take until it answers: to end one that is slow helps nobody.
DEADLINE = 120.0

Server = TypeVar("Server", bound=LocalServer)


@contextlib.asynccontextmanager
async def kept_running(server: Server) -> AsyncIterator[Server]:
    """It answers when the block begins, is started again whenever it has ended by itself, and does not run afterwards.
    Raises StartFailed where it does not start at first."""
    async with server:
        keeping = asyncio.create_task(_keep(server), name=f"keep {server.listen}")
        try:
            yield server
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def _keep(server: LocalServer) -> None:
    bound = log.bind(server=type(server).__name__, listen=server.listen)
    failures, started = 0, time.monotonic()
    while True:
        status = await server.ended()
        failures = 0 if time.monotonic() - started > STEADY else failures
        pause = min(LONGEST, FIRST * 2 ** min(failures, 10))
        bound.warning("a server beside the controller has ended", status=status, started_again_in=pause)
        await asyncio.sleep(pause)
        failures, started = failures + 1, time.monotonic()
        try:
            await server.revive(DEADLINE)
        except (StartFailed, OSError) as error:
            bound.error("a server beside the controller cannot be started", error=str(error))
        else:
            bound.info("a server beside the controller runs again")
