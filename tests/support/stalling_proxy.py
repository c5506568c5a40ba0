"""A TCP proxy whose server goes silent in the middle of each longer answer, until it is released."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.counting_proxy import PIECE, CountingProxy

# Enough for a TLS handshake and a manifest, and for no layer.
LETS_THROUGH = 32 * 1024


@dataclass
class StallingProxy(CountingProxy):
    """`stalled` is how many connections have been held up so far, each after `lets_through` bytes; `released` lets
    everything pass."""

    lets_through: int = LETS_THROUGH
    stalled: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        if not up:
            await self._begin(reader, writer)
        await super()._pass(reader, writer, up)

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self.lets_through
        while left > 0 and (piece := await reader.read(min(left, PIECE))):
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
        if left <= 0:
            self.stalled += 1
            await self.released.wait()


@asynccontextmanager
async def stalling_proxy(target: str, host: str, lets_through: int = LETS_THROUGH) -> AsyncIterator[StallingProxy]:
    """Runs on a port of `host`, an address of this machine, until the block ends; `target` is host:port."""
    proxy = StallingProxy(target, lets_through=lets_through)
    server = await asyncio.start_server(proxy.serve, host, 0)
    proxy.address = f"{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
