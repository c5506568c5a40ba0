"""A child process that ends with its parent and whose output goes to a file."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from controller.errors import OperatorError

START_DEADLINE = 20.0
STOP_DEADLINE = 10.0
SERVER_PORTS = (10_000, 32_000)
# Not the shared generator: where that is seeded, processes beside each other would all look at the same ports.
_random = random.SystemRandom()
_given: set[int] = set()
# setpriv(1) of util-linux: the kernel kills the program when its parent dies, however that happens. A function that
# runs between fork and exec would do the same, and is not safe beside the threads of gRPC.
END_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


class StartFailed(OperatorError):
    """The process ended, or did not answer in time; the text has the end of its output."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment, and that was not given out in this process before.

    Below those that the kernel gives to outgoing connections (ip_local_port_range), so that none of them takes it
    before the server that it is meant for.
    """
    for _ in range(1000):
        port = _random.randrange(*SERVER_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            _given.add(port)
            return port
    raise StartFailed(f"no free port on {host}")


class ChildProcess:
    """Starts one program; `stop` ends it with TERM, then KILL. Its output is appended to `log_file`."""

    def __init__(self, argv: Sequence[str], log_file: Path, env: Mapping[str, str] | None = None) -> None:
        self._argv = list(argv)
        self._env = dict(env) if env is not None else None
        self.log_file = log_file
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> int | None:
        """Its exit status, once it has ended; negative where a signal ended it, None where it could not be started."""
        return None if self._process is None else await self._process.wait()

    async def start(self, answers: Callable[[], bool], deadline: float = START_DEADLINE) -> None:
        """Afterwards the process runs and `answers()` was true. Raises StartFailed, when it does not run any more: it
        ended, or did not answer within so many seconds."""
        with self.log_file.open("ab") as log:
            # In a session of its own: Ctrl-C at a terminal is for the parent, which ends its children in order.
            self._process = await asyncio.create_subprocess_exec(
                *END_WITH_PARENT, *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._env,
                start_new_session=True,
            )  # fmt: skip
        given_up = time.monotonic() + deadline
        while not await asyncio.to_thread(answers):
            if self._process.returncode is not None:
                raise StartFailed(f"{self._argv[0]} ended with {self._process.returncode}:\n{self._tail()}")
            if time.monotonic() > given_up:
                await self.stop()
                raise StartFailed(f"{self._argv[0]} does not answer after {deadline:.0f} s:\n{self._tail()}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Afterwards it does not run. Idempotent."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_DEADLINE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL, as a crash would look. Idempotent."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-2000:]


def accepts_connections(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
