"""A connection to Podman's API that turns into bytes both ways, or is refused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.podman.errors import ApiError
from edge_agent.podman.hijack import hijack

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def service(path: Path, answer: Answer) -> AsyncIterator[str]:
    """Something that answers each connection, once it has the head of a request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        await server.wait_closed()


async def test_bytes_go_both_ways_behind_the_answer_and_the_request(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(2) == b"{}"
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nfirst ")
        writer.write(await reader.read())

    async with service(tmp_path / "socket", echo) as url:
        stream = await hijack(url, "/exec/1/start", {})
        stream.writer.write(b"second")
        stream.writer.write_eof()
        assert await stream.reader.read() == b"first second"
        stream.writer.close()


async def test_refusal_is_told_with_its_message(tmp_path: Path) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"cause":"x","message":"no such exec session","response":404}'
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with service(tmp_path / "socket", refuse) as url:
        with pytest.raises(ApiError, match="no such exec session") as caught:
            await hijack(url, "/exec/1/start", {})
    assert caught.value.status == 404


async def test_connection_that_is_closed_without_an_answer_is_an_error(tmp_path: Path) -> None:
    async def leave(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with service(tmp_path / "socket", leave) as url:
        with pytest.raises(ConnectionError):
            await hijack(url, "/exec/1/start", {})
    with pytest.raises(OSError, match="No such file"):
        await hijack(f"unix://{tmp_path / 'nothing'}", "/exec/1/start", {})
