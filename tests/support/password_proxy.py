"""An HTTP proxy that asks for a password, and the only way to the names that it knows: no resolver knows them."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

USER, PASSWORD = "proxyuser", "pr0xyPassw0rd"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PIECE = 2**16


@dataclass
class PasswordProxy:
    """CONNECT leads to a port of this machine: `hosts`, by name. GET is answered from `files`, by URL. `served` are the
    requests that had the password, such as "CONNECT packages.invalid:443"; `refused` those that had not."""

    hosts: Mapping[str, int]
    files: Mapping[str, bytes]
    port: int = 0
    served: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._answer(reader, writer)
        writer.close()
        self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.splitlines()
        method, target, _ = request.split()
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if fields.get("proxy-authorization") != AUTHORIZATION:
            self.refused.append(f"{method} {target}")
            await _say(writer, "407 Proxy Authentication Required", b"", 'Proxy-Authenticate: Basic realm="proxy"\r\n')
            return
        self.served.append(f"{method} {target}")
        if method == "CONNECT":
            await self._connect(target.partition(":")[0], reader, writer)
        elif target in self.files:
            await _say(writer, "200 OK", self.files[target])
        else:
            await _say(writer, "404 Not Found", b"")

    async def _connect(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host not in self.hosts:
            await _say(writer, "502 Bad Gateway", b"")
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.hosts[host])
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        finally:
            far_writer.close()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _say(writer: asyncio.StreamWriter, status: str, body: bytes, fields: str = "") -> None:
    head = f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@asynccontextmanager
async def password_proxy(hosts: Mapping[str, int], files: Mapping[str, bytes]) -> AsyncIterator[PasswordProxy]:
    """Runs on a port of 127.0.0.1 until the block ends."""
    proxy = PasswordProxy(hosts, files)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
