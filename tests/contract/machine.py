"""What the contract suite asks of each implementation: a `Machine` with programs and commands. And what tests share."""

import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from edge_agent.runtime.backend import DeployBackend, Handle, LogLine, LogQuery, Observed, Phase, Progress
from edge_agent.runtime.model import Workload

DEADLINE = 20.0


class Program(enum.Enum):
    """What an instance of a workload does."""

    POLITE = enum.auto()  # runs until TERM
    STUBBORN = enum.auto()  # runs until KILL
    FAILS = enum.auto()  # ends at once with 3
    FAILS_SOON = enum.auto()  # ends with 7 within a second
    WRITES = enum.auto()  # writes "line 1" to "line 5", then runs until TERM
    NO_COMMAND = enum.auto()  # its command does not exist in the image
    SERVES = enum.auto()  # listens on its port "http", and runs until TERM
    WORKS = enum.auto()  # uses the processor again and again, until TERM


class Command(enum.Enum):
    """What a command inside an instance does."""

    ECHO = enum.auto()  # gives back its input, and ends with it
    BOTH = enum.auto()  # says "out" on its output and "err" on the other
    ENDS = enum.auto()  # ends at once with 7
    SIZE = enum.auto()  # says "ROWS COLUMNS" of its terminal, at first and after each change
    MUCH = enum.auto()  # says MUCH times "x", and ends
    LASTS = enum.auto()  # runs until it is killed, as does a child of it
    NONE = enum.auto()  # does not exist


MUCH = 3_000_000


class HasBackend(Protocol):
    """An agent's backend, as a test has it."""

    @property
    def backend(self) -> DeployBackend: ...


class Machine(HasBackend, Protocol):
    """A device with an engine, a registry that has what `workload` names, and one agent's backend. Every test has its
    own owner."""

    def workload(self, program: Program, *, host_port: int | None = None, revision: int = 1) -> Workload:
        """A workload of a deployment of its own; with a port "http" where `host_port` is given (0: any)."""
        ...

    def missing(self) -> Workload:
        """Its artifact is not in the registry."""
        ...

    def unreachable(self) -> Workload:
        """Its registry does not answer."""
        ...

    def foreign(self) -> Workload:
        """Its artifact is for another processor."""
        ...

    async def fresh_image(self, workload: Workload) -> Workload:
        """The same with an artifact that nobody else uses and that is not on the device."""
        ...

    def other_owner(self) -> AbstractAsyncContextManager[DeployBackend]:
        """Another agent's backend over the same engine."""
        ...

    async def restart_agent(self) -> None:
        """The agent is killed and started again: `backend` is another one."""
        ...

    def engine_down(self) -> AbstractAsyncContextManager[None]:
        """Within the block the engine does not answer; instances run on."""
        ...

    async def kill(self, handle: Handle) -> None:
        """The instance is killed by somebody else."""
        ...

    def command(self, command: Command) -> Sequence[str]: ...

    async def lasting(self, handle: Handle) -> int:
        """How many processes of commands that last live in the instance."""
        ...

    async def free_port(self) -> int: ...

    def taken_port(self) -> AbstractAsyncContextManager[int]:
        """A port of the device that something else listens on."""
        ...


def ignore(_: Progress) -> None:
    pass


async def launch(machine: HasBackend, workload: Workload) -> Handle:
    await machine.backend.prepare(workload, ignore)
    return await machine.backend.start(workload)


async def inside(machine: HasBackend, handle: Handle, script: str) -> str:
    """What a shell in the instance says."""
    result = await machine.backend.exec(handle, ["sh", "-c", script], 20)
    return result.output.decode().strip()


async def find(backend: DeployBackend, handle: Handle) -> Observed | None:
    return next((seen for seen in await backend.list() if seen.handle == handle), None)


async def await_observed(backend: DeployBackend, handle: Handle, holds: Callable[[Observed], bool]) -> Observed:
    async with asyncio.timeout(DEADLINE):
        while True:
            seen = await find(backend, handle)
            if seen is not None and holds(seen):
                return seen
            await asyncio.sleep(0.02)


def has_ended(seen: Observed) -> bool:
    return seen.phase is Phase.EXITED


async def read(lines: AsyncIterator[LogLine]) -> list[str]:
    return [line.text async for line in lines]


async def await_lines(backend: DeployBackend, handle: Handle, count: int) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        while True:
            lines = await read(backend.logs(handle, LogQuery()))
            if len(lines) >= count:
                return lines
            await asyncio.sleep(0.02)
