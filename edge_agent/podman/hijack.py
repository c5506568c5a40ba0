"""A request to Podman's API whose connection becomes a stream of bytes both ways (`Upgrade: tcp`, RFC 9110, 7.8).

podman-py has no way to say anything on such a connection.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_agent.podman.errors import ApiError

# Of what is not read yet, asyncio keeps twice as much before the other side has to wait.
READ_AHEAD = 64 * 1024
ANSWER_SECONDS = 60.0
LONGEST_ERROR = 64 * 1024
SWITCHED = 101


@dataclass(frozen=True)
class Hijacked:
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def hijack(url: str, path: str, body: object) -> Hijacked:
    """Makes the request to the service at `url`. Raises ApiError for any answer but the switch of protocols,
    ConnectionError where none comes."""
    connection = await _connect(url)
    try:
        connection.writer.write(_request(path, body))
        async with asyncio.timeout(ANSWER_SECONDS):
            await _switched(path, connection.reader)
    except BaseException:
        connection.writer.close()
        raise
    return connection


async def _connect(url: str) -> Hijacked:
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        return Hijacked(*await asyncio.open_connection(parts.hostname, parts.port, limit=READ_AHEAD))
    return Hijacked(*await asyncio.open_unix_connection(parts.netloc + parts.path, limit=READ_AHEAD))


def _request(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = [
        f"POST {path} HTTP/1.1",
        "Host: podman",
        "Connection: Upgrade",
        "Upgrade: tcp",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + content


async def _switched(path: str, reader: asyncio.StreamReader) -> None:
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionResetError("podman closed the connection without an answer") from error
    status = int(first.split()[1])
    if status == SWITCHED:
        return
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = min(int(fields.get("content-length", 0)), LONGEST_ERROR)
    text = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        text = await reader.readexactly(length)
    raise ApiError(status, f"POST {path}", _message(text.decode(errors="replace")))


def _message(text: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        answer = json.loads(text)
        return str(answer.get("message") or answer.get("cause") or text)
    return text
