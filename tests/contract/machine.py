"""What the contract of backends needs of an implementation: a device, what belongs to it, and programs to run."""

import enum
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from edge_agent.runtime.backend import DeployBackend, Handle
from edge_agent.runtime.model import Workload


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


class Machine(Protocol):
    """A device with an engine, a registry that has what `workload` names, and one agent's backend. Every test has its
    own owner."""

    @property
    def backend(self) -> DeployBackend: ...

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

    async def free_port(self) -> int: ...

    def taken_port(self) -> AbstractAsyncContextManager[int]:
        """A port of the device that something else listens on."""
        ...
