"""A `DeployBackend` that lives in another process, for instance inside a simulated device.

The process runs `python -m tests.support.remote_backend` and is told over a pair of pipes, by pickled messages, to
build the backend and to call its verbs. Killing it is killing the agent.
"""

import asyncio
import contextlib
import copyreg
import functools
import itertools
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import Any, Protocol

from edge_agent.runtime.backend import (
    BackendError,
    BackendFacts,
    BackendUnavailable,
    DeployBackend,
    ExecResult,
    ExecSession,
    Handle,
    LogLine,
    LogQuery,
    Observed,
    Progress,
    Stats,
    TerminalSize,
    Unsupported,
)
from edge_agent.runtime.model import Workload

LENGTH = struct.Struct("!I")


def _reduce_error(error: BackendError) -> tuple[Any, ...]:
    return _make_error, (type(error), error.reason, error.message, error.retryable)


def _make_error(kind: type[BackendError], reason: str, message: str, retryable: bool) -> BackendError:
    error = kind.__new__(kind)
    BackendError.__init__(error, reason, message, retryable=retryable)
    return error


def _reduce_path(path: PosixPath) -> tuple[Any, ...]:
    return _make_path, (str(path),)


def _make_path(path: str) -> PosixPath:
    return PosixPath(path)


for _kind in (BackendError, BackendUnavailable, Unsupported):
    copyreg.pickle(_kind, _reduce_error)

# Versions of Python differ in where its class is.
copyreg.pickle(PosixPath, _reduce_path)

STREAMS = ("watch", "logs")
END = "end"


@dataclass(frozen=True)
class Request:
    """`verb` "cancel" ends the call with the same number."""

    number: int
    verb: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Reply:
    """`kind`: "result", "error", "item" of a stream, "progress" of a fetch, "end" of a stream."""

    number: int
    kind: str
    value: Any = None


class BackendOptions(Protocol):
    """What the other process makes a backend with."""

    @property
    def environment(self) -> dict[str, str]: ...

    def build(self) -> DeployBackend:
        """In the other process."""
        ...


@dataclass(frozen=True)
class PodmanOptions:
    """What a PodmanBackend is made with; `user` and `password` are its credentials."""

    owner: str
    state_dir: Path
    user: str = ""
    password: str = ""
    registry_ca: Path | None = None
    url: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def build(self) -> DeployBackend:
        from edge_agent.podman.backend import PodmanBackend

        async def credentials() -> tuple[str, str]:
            return self.user, self.password

        return PodmanBackend(self.owner, self.state_dir, credentials, self.registry_ca, self.url)


@dataclass(frozen=True)
class VirtualenvOptions:
    """What a VirtualenvBackend is made with."""

    owner: str
    state_dir: Path
    user: str = ""
    password: str = ""
    registry_ca: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def build(self) -> DeployBackend:
        from baremetal_agent.virtualenv.backend import VirtualenvBackend

        async def credentials() -> tuple[str, str]:
            return self.user, self.password

        return VirtualenvBackend(self.owner, self.state_dir, credentials, self.registry_ca)


class RemoteBackend:
    """The verbs, carried out by the backend in the other process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Queue[Reply]] = {}
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def launch(cls, command: Callable[[Sequence[str]], list[str]], options: BackendOptions) -> "RemoteBackend":
        """Starts the process by the command line that `command` makes of one."""
        argv = command([sys.executable, "-m", "tests.support.remote_backend"])
        root = Path(__file__).resolve().parents[2]
        # Not in a thread: inside a device, a process is to die with the thread that started it.
        process = subprocess.Popen(  # noqa: ASYNC220
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd=root,
            env={**os.environ, **options.environment},
        )  # fmt: skip
        remote = cls(process)
        remote._reading = asyncio.create_task(remote._read_replies())
        try:
            await remote._call("open", options)
        except BaseException:
            await remote.kill()
            raise
        return remote

    async def kill(self) -> None:
        """As `kill -9` of the agent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._finish()

    async def close(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._call("close")
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._finish()

    async def _finish(self) -> None:
        await asyncio.to_thread(self._process.wait)
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    async def _read_replies(self) -> None:
        assert self._process.stdout is not None
        try:
            while (reply := await asyncio.to_thread(_receive, self._process.stdout)) is not None:
                if reply.number in self._replies:
                    self._replies[reply.number].put_nowait(reply)
        finally:
            for waiting in self._replies.values():
                waiting.put_nowait(Reply(0, "error", ConnectionError("the backend's process is gone")))

    async def _replies_to(self, verb: str, *arguments: Any) -> AsyncGenerator[Reply, None]:
        number = next(self._numbers)
        queue = self._replies[number] = asyncio.Queue()
        self._send(Request(number, verb, arguments))
        try:
            while True:
                reply = await queue.get()
                if reply.kind == "error":
                    raise reply.value
                if reply.kind == END:
                    return
                yield reply
                if reply.kind == "result":
                    return
        finally:
            del self._replies[number]
            self._send(Request(number, "cancel"))

    def _send(self, request: Request) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            _transmit(self._process.stdin, request)

    async def _call(self, verb: str, *arguments: Any) -> Any:
        async with contextlib.aclosing(self._replies_to(verb, *arguments)) as replies:
            async for reply in replies:
                return reply.value
        raise AssertionError(f"no answer to {verb}")

    async def probe(self) -> BackendFacts:
        facts: BackendFacts = await self._call("probe")
        return facts

    async def prepare(self, workload: Workload, progress: Callable[[Progress], None]) -> None:
        async with contextlib.aclosing(self._replies_to("prepare", workload)) as replies:
            async for reply in replies:
                if reply.kind == "progress":
                    progress(reply.value)

    async def start(self, workload: Workload) -> Handle:
        handle: Handle = await self._call("start", workload)
        return handle

    async def list(self) -> Sequence[Observed]:
        found: Sequence[Observed] = await self._call("list")
        return found

    async def watch(self) -> AsyncGenerator[None, None]:
        async with contextlib.aclosing(self._replies_to("watch")) as replies:
            async for _ in replies:
                yield None

    async def stop(self, handle: Handle, grace: float) -> None:
        await self._call("stop", handle, grace)

    async def remove(self, handle: Handle) -> None:
        await self._call("remove", handle)

    async def logs(self, handle: Handle, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        async with contextlib.aclosing(self._replies_to("logs", handle, query)) as replies:
            async for reply in replies:
                yield reply.value

    async def exec(self, handle: Handle, command: Sequence[str], timeout: float) -> ExecResult:
        result: ExecResult = await self._call("exec", handle, command, timeout)
        return result

    async def open_exec(self, handle: Handle, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession:
        number: int = await self._call("open_exec", handle, command, terminal)
        return RemoteExec(self._call, number)

    async def listens(self, handle: Handle, port: str) -> bool | None:
        told: bool | None = await self._call("listens", handle, port)
        return told

    async def stats(self, handle: Handle) -> Stats:
        found: Stats = await self._call("stats", handle)
        return found

    async def forget(self, deployment_id: str | None) -> None:
        await self._call("forget", deployment_id)

    async def prune(self, keep: frozenset[str]) -> None:
        await self._call("prune", keep)


class RemoteExec:
    """A command that the backend in the other process has open, by its number there."""

    def __init__(self, call: Callable[..., Awaitable[Any]], number: int) -> None:
        self._call = call
        self._number = number

    async def read(self) -> tuple[str, bytes] | None:
        said: tuple[str, bytes] | None = await self._call("exec_read", self._number)
        return said

    async def write(self, data: bytes) -> None:
        await self._call("exec_write", self._number, data)

    async def resize(self, size: TerminalSize) -> None:
        await self._call("exec_resize", self._number, size)

    async def wait(self) -> int:
        code: int = await self._call("exec_wait", self._number)
        return code

    async def close(self) -> None:
        await self._call("exec_close", self._number)


def _transmit(pipe: Any, message: Request | Reply) -> None:
    content = pickle.dumps(message)
    pipe.write(LENGTH.pack(len(content)) + content)
    pipe.flush()


def _receive(pipe: Any) -> Any:
    """The next message; None at the end."""
    head = pipe.read(LENGTH.size)
    return pickle.loads(pipe.read(LENGTH.unpack(head)[0])) if len(head) == LENGTH.size else None


class _Server:
    """Inside the other process: one task per call."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._backend: DeployBackend | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._commands: dict[int, ExecSession] = {}

    async def serve(self, requests: Any) -> None:
        while (request := await asyncio.to_thread(_receive, requests)) is not None:
            if request.verb == "cancel":
                if (task := self._tasks.get(request.number)) is not None:
                    task.cancel()
                continue
            task = asyncio.create_task(self._carry_out(request))
            self._tasks[request.number] = task
            task.add_done_callback(functools.partial(self._forget, request.number))

    def _forget(self, number: int, _: "asyncio.Task[None]") -> None:
        self._tasks.pop(number, None)

    async def _carry_out(self, request: Request) -> None:
        try:
            if request.verb in STREAMS:
                async for item in getattr(self._backend, request.verb)(*request.arguments):
                    self._reply(Reply(request.number, "item", item))
                self._reply(Reply(request.number, END))
            else:
                self._reply(Reply(request.number, "result", await self._result(request)))
        except Exception as error:  # noqa: BLE001  raised again in the process that asked
            self._reply(Reply(request.number, "error", error))

    def _reply(self, reply: Reply) -> None:
        _transmit(self._output, reply)

    def _result(self, request: Request) -> Awaitable[Any]:
        if request.verb == "open":
            return self._open(*request.arguments)
        if request.verb == "prepare":
            assert self._backend is not None
            (workload,) = request.arguments
            return self._backend.prepare(workload, lambda seen: self._reply(Reply(request.number, "progress", seen)))
        if request.verb == "open_exec":
            return self._open_exec(request)
        if request.verb.startswith("exec_"):
            number, *arguments = request.arguments
            of_command: Callable[..., Awaitable[Any]] = getattr(self._commands[number], request.verb[len("exec_") :])
            return of_command(*arguments)
        verb: Callable[..., Awaitable[Any]] = getattr(self._backend, request.verb)
        return verb(*request.arguments)

    async def _open_exec(self, request: Request) -> int:
        assert self._backend is not None
        self._commands[request.number] = await self._backend.open_exec(*request.arguments)
        return request.number

    async def _open(self, options: BackendOptions) -> None:
        self._backend = options.build()


def main() -> None:
    # What the backend prints by accident must not get between the messages.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asyncio.run(_Server(output).serve(sys.stdin.buffer))


if __name__ == "__main__":
    # Under its own name, so that pickled messages are of the same classes on both sides.
    from tests.support.remote_backend import main as run

    run()
