"""A private socket on this machine that leads to the Podman service of another one, over ssh or TLS.

Podman itself speaks neither TLS nor ssh with strict checking of host keys, but it speaks to a socket.
"""

import asyncio
import contextlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from controller.builds import processes
from controller.builds.cancelling import despite_cancel
from controller.builds.machine import HostLost
from controller.builds.model import BuildFailed

CONNECT_DEADLINE = 20.0
# A machine that is silent for three times this many seconds is gone.
ALIVE_INTERVAL = 5
PIECE = 65536


class Tunnel(Protocol):
    def open(self, folder: Path, environment: dict[str, str]) -> AbstractAsyncContextManager[Path]:
        """The socket, in a new folder below `folder` that is gone afterwards. `environment` marks processes that are
        started. Raises HostLost where the other side cannot be reached or is not who it should be."""


@dataclass(frozen=True)
class SshTunnel:
    """By the program ssh. The host's key has to be in `known_hosts` (the user's own file where it is None)."""

    url: str
    key: Path | None = None
    known_hosts: Path | None = None

    @asynccontextmanager
    async def open(self, folder: Path, environment: dict[str, str]) -> AsyncIterator[Path]:
        with private_folder(folder) as inside:
            local = inside / "podman.sock"
            lines: list[str] = []
            running = asyncio.create_task(self._run(local, environment, lines))
            try:
                await self._ready(local, running, lines)
                yield local
            finally:
                running.cancel()
                await despite_cancel(asyncio.wait([running]))

    async def _run(self, local: Path, environment: dict[str, str], lines: list[str]) -> int:
        return await processes.stream(self.argv(local), environment, lambda _, text: lines.append(text))

    async def _ready(self, local: Path, running: "asyncio.Task[int]", lines: list[str]) -> None:
        # ssh makes the socket when both keys were found good.
        end = asyncio.get_running_loop().time() + CONNECT_DEADLINE
        while not local.exists():
            if running.done() and isinstance(running.exception(), FileNotFoundError):
                raise HostLost("the program ssh is not there; install the package openssh-client")
            if running.done() or asyncio.get_running_loop().time() > end:
                raise HostLost(f"{self.url} cannot be reached: {_last(lines) or 'no answer'}")
            await asyncio.sleep(0.02)

    def argv(self, local: Path) -> list[str]:
        parts = urlsplit(self.url)
        options = {
            "BatchMode": "yes", "StrictHostKeyChecking": "yes", "ExitOnForwardFailure": "yes",
            "ConnectTimeout": str(int(CONNECT_DEADLINE / 2)), "ServerAliveInterval": str(ALIVE_INTERVAL),
            "ServerAliveCountMax": "3", "ControlMaster": "no", "ControlPath": "none", "LogLevel": "ERROR",
        }  # fmt: skip
        if self.key is not None:
            options |= {"IdentityFile": str(self.key), "IdentitiesOnly": "yes"}
        if self.known_hosts is not None:
            options |= {"UserKnownHostsFile": str(self.known_hosts), "GlobalKnownHostsFile": "/dev/null"}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [
            "ssh", "-N", "-T", "-p", str(parts.port or 22), *words, "-L", f"{local}:{parts.path}",
            "--", f"{parts.username}@{parts.hostname}",
        ]  # fmt: skip


@dataclass(frozen=True)
class TlsTunnel:
    """TLS with certificates of both sides: `ca_file` verifies the host, whose certificate names it."""

    url: str
    ca_file: Path
    cert_file: Path
    key_file: Path

    @asynccontextmanager
    async def open(self, folder: Path, environment: dict[str, str]) -> AsyncIterator[Path]:
        context = await asyncio.to_thread(self._context)
        # At once, since a client of the socket would only see its connection end.
        _, writer = await self._connect(context)
        writer.close()
        streams: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._forward(context, reader, writer))
            streams[task] = writer
            task.add_done_callback(lambda task: streams.pop(task).close())

        with private_folder(folder) as inside:
            server = await asyncio.start_unix_server(accept, inside / "podman.sock")
            try:
                yield inside / "podman.sock"
            finally:
                server.close()
                for task in streams:
                    task.cancel()
                await despite_cancel(asyncio.gather(*streams, return_exceptions=True))

    async def _forward(
        self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await self._connect(context)
        except HostLost:
            return
        up = asyncio.create_task(_copy(reader, far_writer))
        down = asyncio.create_task(_copy(far_reader, writer))
        try:
            # TLS has no half-closed connections that all ends know; Podman's client waits for the whole answer.
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await despite_cancel(asyncio.gather(up, down, return_exceptions=True))
            far_writer.close()

    async def _connect(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.url)
        try:
            async with asyncio.timeout(CONNECT_DEADLINE):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
        except (OSError, TimeoutError) as error:
            raise HostLost(f"{self.url} cannot be reached: {error or 'no answer'}") from error
        _watch(writer.get_extra_info("socket"))
        return reader, writer

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            raise HostLost(f"cannot use the certificates for {self.url}: {error}") from error
        return context


@contextlib.contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="t", dir=parent))
    except OSError as error:
        raise BuildFailed(
            "BuilderUnusable", f"cannot make a folder for a connection: {error}", retryable=True
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()


def _watch(connection: socket.socket) -> None:
    """The connection breaks when the other side is silent for too long."""
    for name, value in (("TCP_KEEPIDLE", ALIVE_INTERVAL), ("TCP_KEEPINTVL", ALIVE_INTERVAL), ("TCP_KEEPCNT", 3)):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3 * ALIVE_INTERVAL * 1000)


def _last(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")
