"""A command inside a running container with input and output as they come: `ExecSession` over a hijacked connection."""

import asyncio
import contextlib
import os
from typing import Any

from edge_agent.podman import machine
from edge_agent.podman.connection import Connection
from edge_agent.podman.container import Container
from edge_agent.podman.errors import ApiError
from edge_agent.podman.frames import HEADER, STREAMS
from edge_agent.podman.hijack import Hijacked
from edge_agent.runtime.backend import BackendError, BackendUnavailable, TerminalSize
from edge_agent.runtime.command_processes import kill_command
from edge_agent.runtime.deaths import wait_for_end
from edge_agent.runtime.open_commands import OpenCommands

CHUNK = 64 * 1024
END_OF_INPUT = b"\x04"
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
# How long Podman may take to say which process a command has, and how it ended.
SETTLE_SECONDS = 10.0
KILLED = 128 + 9


class PodmanExec:
    """`session` is Podman's name for it. Made when the command is on its way; for one event loop."""

    def __init__(
        self,
        connection: Connection,
        session: str,
        container: Container,
        stream: Hijacked,
        opened: OpenCommands,
        *,
        terminal: bool,
    ) -> None:
        self._connection = connection
        self._session = session
        self._container = container
        self._group = machine.own_group(container.pid, container.id)
        self._reader, self._writer = stream.reader, stream.writer
        self._opened = opened
        self._terminal = terminal
        self._pid = 0
        self._note = ""
        self._known = asyncio.Event()
        # The frame that is being read: its stream, and how much of it is not read yet.
        self._frame = ("", 0)
        self._closed = False
        # At once, and not when the output has ended: that may be long after the command, where the reader is slow, and
        # Podman forgets how a command ended after a few seconds.
        self._end = asyncio.create_task(self._follow(), name=f"exec-{session[:12]}")

    async def read(self) -> tuple[str, bytes] | None:
        try:
            return await (self._read_terminal() if self._terminal else self._read_framed())
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def _read_terminal(self) -> tuple[str, bytes] | None:
        data = await self._reader.read(CHUNK)
        return ("stdout", data) if data else None

    async def _read_framed(self) -> tuple[str, bytes] | None:
        name, left = self._frame
        while not left:
            number, left = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            name = STREAMS.get(number, "stdout")
        data = await self._reader.read(min(left, CHUNK))
        self._frame = (name, left - len(data))
        return (name, data) if data else None

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            if data or self._terminal:
                self._writer.write(data or END_OF_INPUT)
                await self._writer.drain()
            else:
                self._writer.write_eof()

    async def resize(self, size: TerminalSize) -> None:
        if self._terminal and not self._end.done():
            params = {"h": str(size.rows), "w": str(size.columns)}
            # It may have ended meanwhile, or not have begun.
            with contextlib.suppress(ApiError):
                await self._connection.call("POST", f"exec/{self._session}/resize", params=params)

    async def wait(self) -> int:
        while await self.read() is not None:
            pass
        await asyncio.wait([self._end], timeout=SETTLE_SECONDS)
        if not self._end.done():
            raise BackendUnavailable("PodmanUnavailable", "podman broke off the session with the command")
        return self._end.result()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._kill()
        finally:
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)
            self._opened.remove(self._note)
            self._writer.close()

    async def _kill(self) -> None:
        """Closing the connection would leave the command running."""
        if self._end.done() and not self._end.cancelled() and self._end.exception() is None:
            return
        known = asyncio.create_task(self._known.wait())
        await asyncio.wait([known, self._end], timeout=SETTLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        if self._pid:
            await kill_command(self._pid, self._group)

    async def _follow(self) -> int:
        """The exit code, as soon as Podman knows it."""
        pause = FIRST_PAUSE
        while not (facts := await self._facts())["CanRemove"]:
            if int(facts["Pid"]) and not self._pid:
                self._pid = int(facts["Pid"])
                self._note = self._opened.add(self._pid, self._group)
                self._known.set()
                await self._until_dead()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 1.5 * pause)
        self._opened.remove(self._note)
        return int(facts["ExitCode"])

    async def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = await self._connection.call("GET", f"exec/{self._session}/json")
        except ApiError as error:
            if not machine.runs(self._container.pid, self._container.id):
                # The container has ended, and with it all commands inside, of which Podman keeps nothing.
                return {"CanRemove": True, "ExitCode": KILLED}
            message = f"podman does not know how the command ended: {error.message}"
            raise BackendError("ExecFailed", message, retryable=True) from error
        return facts

    async def _until_dead(self) -> None:
        process = machine.open_process(self._pid, self._container.id)
        if process is not None:
            try:
                await wait_for_end(process, None)
            finally:
                os.close(process)
