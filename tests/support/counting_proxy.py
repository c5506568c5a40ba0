"""A TCP proxy that counts what passes it, TLS and all: what a link to the server behind it carries. It can break."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PIECE = 2**16


@dataclass
class CountingProxy:
    """`sent` are bytes towards the server, `received` those from it. `address` is host:port. Once `breaks_at` bytes
    were received, the connection is cut off, and that setting with it; `breaks` counts."""

    target: str
    address: str = ""
    sent: int = 0
    received: int = 0
    breaks_at: int | None = None
    breaks: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def reset(self) -> None:
        self.sent = self.received = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self.target.rpartition(":")
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.gather(self._pass(reader, far_writer, True), self._pass(far_reader, writer, False))
            finally:
                far_writer.close()
        writer.close()
        self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        while piece := await reader.read(PIECE):
            if up:
                self.sent += len(piece)
            else:
                self.received += len(piece)
                self._break_off()
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _break_off(self) -> None:
        if self.breaks_at is not None and self.received >= self.breaks_at:
            self.breaks_at = None
            self.breaks += 1
            raise ConnectionAbortedError

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def counting_proxy(target: str) -> AsyncIterator[CountingProxy]:
    """Runs on a port of 127.0.0.1 until the block ends; `target` is host:port."""
    proxy = CountingProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
