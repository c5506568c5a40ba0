"""Commands beside a running instance: to their end with all they print, or with input and output as they come."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Mapping, Sequence

from edge_agent.runtime.backend import BackendError, ExecResult, TerminalSize
from edge_agent.runtime.command_processes import kill_command
from edge_agent.runtime.open_commands import OpenCommands

OUTPUT_LIMIT = 1024 * 1024
CHUNK = 32 * 1024
END_OF_INPUT = b"\x04"


async def run_to_end(
    argv: Sequence[str], environment: Mapping[str, str], command: Sequence[str], timeout: float
) -> ExecResult:
    """What `DeployBackend.exec` promises, for a command line that enters the instance and runs `command`."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            output = await _limited(process.stdout)
            await process.wait()
    except TimeoutError:
        message = f"{' '.join(command)} ran longer than {timeout:g} s"
        raise BackendError("ExecTimeout", message, retryable=True) from None
    finally:
        await end(process)
    return ExecResult(exit_code(process), output)


async def _limited(stream: asyncio.StreamReader) -> bytes:
    """What is too much is read and dropped."""
    output = bytearray()
    while piece := await stream.read(CHUNK):
        output += piece[: OUTPUT_LIMIT - len(output)]
    return bytes(output)


async def end(process: asyncio.subprocess.Process) -> None:
    """It and its children are gone, unless it ended by itself."""
    if process.returncode is None:
        await kill_command(process.pid)
    await process.wait()


def exit_code(process: asyncio.subprocess.Process) -> int:
    code = process.returncode or 0
    return code if code >= 0 else 128 - code


class PipeSession:
    """`ExecSession` without a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, opened: OpenCommands) -> None:
        self._process = process
        self._opened, self._note = opened, opened.add(process.pid)
        # Bounded: who does not read holds up the command, and nobody else.
        self._output: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(maxsize=4)
        self._reading = asyncio.create_task(self._read_both())
        self._over = False

    @classmethod
    async def open(cls, argv: Sequence[str], environment: Mapping[str, str], opened: OpenCommands) -> "PipeSession":
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, start_new_session=True, stdin=pipe, stdout=pipe, stderr=pipe
        )
        return cls(process, opened)

    async def _read_both(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        await asyncio.gather(
            self._pass_on("stdout", self._process.stdout), self._pass_on("stderr", self._process.stderr)
        )
        await self._output.put(None)

    async def _pass_on(self, name: str, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(CHUNK):
            await self._output.put((name, piece))

    async def read(self) -> tuple[str, bytes] | None:
        piece = None if self._over else await self._output.get()
        self._over = piece is None
        return piece

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            if data:
                self._process.stdin.write(data)
                await self._process.stdin.drain()
            else:
                self._process.stdin.close()

    async def resize(self, size: TerminalSize) -> None:
        """Without a terminal there is no size."""

    async def wait(self) -> int:
        while await self.read() is not None:
            pass
        await self._process.wait()
        return exit_code(self._process)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await end(self._process)
        self._opened.remove(self._note)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._over = True


class TerminalSession:
    """`ExecSession` in a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int, opened: OpenCommands) -> None:
        self._process = process
        self._opened, self._note = opened, opened.add(process.pid)
        self._terminal = terminal
        self._open = True

    @classmethod
    async def open(
        cls, argv: Sequence[str], environment: Mapping[str, str], size: TerminalSize, opened: OpenCommands
    ) -> "TerminalSession":
        terminal, inner = os.openpty()
        os.set_blocking(terminal, False)
        _set_size(terminal, size)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, env={"TERM": "xterm", **environment}, start_new_session=True,
                stdin=inner, stdout=inner, stderr=inner,
            )  # fmt: skip
        except BaseException:
            os.close(terminal)
            raise
        finally:
            os.close(inner)
        return cls(process, terminal, opened)

    async def read(self) -> tuple[str, bytes] | None:
        while self._open:
            try:
                data = os.read(self._terminal, CHUNK)
            except BlockingIOError:
                await self._until_ready(writing=False)
                continue
            except OSError:
                # Nobody has the other end any more.
                data = b""
            return ("stdout", data) if data else None
        return None

    async def write(self, data: bytes) -> None:
        rest = data or END_OF_INPUT
        while rest and self._open:
            try:
                rest = rest[os.write(self._terminal, rest) :]
            except BlockingIOError:
                await self._until_ready(writing=True)
            except OSError:
                return

    async def _until_ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        (loop.add_writer if writing else loop.add_reader)(self._terminal, ready.set)
        try:
            await ready.wait()
        finally:
            if self._open:
                (loop.remove_writer if writing else loop.remove_reader)(self._terminal)

    async def resize(self, size: TerminalSize) -> None:
        if self._open:
            _set_size(self._terminal, size)

    async def wait(self) -> int:
        while await self.read() is not None:
            pass
        await self._process.wait()
        return exit_code(self._process)

    async def close(self) -> None:
        await end(self._process)
        self._opened.remove(self._note)
        if self._open:
            self._open = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._terminal)
            loop.remove_writer(self._terminal)
            os.close(self._terminal)


def _set_size(terminal: int, size: TerminalSize) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
