"""How an agent runs things: the `DeployBackend` interface and what its verbs speak of.

A backend is a handful of promises about what holds afterwards; `Capabilities` says what is optional. One contract
test suite (`tests/contract/backend_contract.py`) runs over every implementation.
"""

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent.runtime.model import ArtifactKind, Workload


class BackendError(Exception):
    """A verb could not keep its promise. `reason` is one UpperCamelCase word that ends up in the status.

    `retryable`: the same call may succeed later without any change of the spec.
    """

    def __init__(self, reason: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


class BackendUnavailable(BackendError):
    """The engine below the backend does not answer. Says nothing about what runs: instances may well run on."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message, retryable=True)


class Unsupported(BackendError):
    """The workload asks for what `Capabilities` does not offer."""

    def __init__(self, message: str) -> None:
        super().__init__("Unsupported", message, retryable=False)


class ArtifactDamaged(BackendError):
    """What was prepared is damaged on this device. What is sound of it stays: `prepare` fetches the rest again."""

    def __init__(self, message: str) -> None:
        super().__init__("ArtifactDamaged", message, retryable=True)


@dataclass(frozen=True)
class Handle:
    """Names one instance across restarts of the agent. Opaque to everyone but the backend that made it."""

    version: int
    value: str


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do on this device beyond the promises that all keep. `refuse_unsupported` holds a workload
    against it."""

    artifacts: frozenset[ArtifactKind]
    exec: bool = False
    # A terminal for `open_exec`.
    tty: bool = False
    stats: bool = False
    mounts: bool = False
    volumes: bool = False
    # Versions of project volumes, fetched by `prepare`.
    project_volumes: bool = False
    secrets: bool = False
    devices: bool = False
    cpu_limit: bool = False
    memory_limit: bool = False
    pids_limit: bool = False
    shared_memory_limit: bool = False
    cpu_set: bool = False
    # By what limits are kept: "cgroup-v1", "cgroup-v2", "rlimit"; empty where by nothing.
    limits_by: str = ""
    # What keeps an instance to itself: "container", "bubblewrap"; empty where nothing does.
    isolation: str = ""
    # What holds the processes of an instance: "systemd", "supervisor"; empty where the engine's own monitor does.
    supervision: str = ""


@dataclass(frozen=True)
class BackendFacts:
    """What `probe` saw. `problem` is empty when the backend can work, else a reason and a sentence:
    "PodmanNotInstalled: ...", "PodmanUnavailable: ...". `store` is where artifacts are kept; None while unknown."""

    name: str
    version: str
    capabilities: Capabilities
    problem: str = ""
    store: Path | None = None


class Phase(enum.Enum):
    """What an instance is doing, as the engine and the machine tell, each checked against the other."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


# What is stored of an instance is damaged, so that it cannot be started again; nor is it known how it ended.
INSTANCE_DAMAGED = "InstanceDamaged"


@dataclass(frozen=True)
class Observed:
    """One instance that this agent owns. Times in seconds since the epoch; 0 where it never happened."""

    handle: Handle
    deployment_id: str
    revision: int
    artifact_digest: str
    phase: Phase
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    # Why it ended, where the backend knows more than the exit code: "OutOfMemory", INSTANCE_DAMAGED.
    exit_reason: str = ""
    # Name of each port -> (address, port) at which this device reaches it.
    addresses: tuple[tuple[str, tuple[str, int]], ...] = ()


@dataclass(frozen=True)
class Progress:
    """Bytes of an artifact that are on the device, and that it has; total 0 while unknown."""

    fetched_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class TerminalSize:
    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class LogQuery:
    """`tail` 0 means all that is kept; `since` in seconds since the epoch, 0 for the beginning."""

    tail: int = 0
    since: float = 0.0
    follow: bool = False


@dataclass(frozen=True)
class LogLine:
    time: float
    stream: str
    text: str


@dataclass(frozen=True)
class ExecResult:
    exit_code: int
    output: bytes


class ExecSession(Protocol):
    """A command that runs inside an instance, with input and output. Closing it kills the command."""

    async def read(self) -> tuple[str, bytes] | None:
        """More output, with its stream ("stdout", "stderr"; with a terminal "stdout"); None at its end."""
        ...

    async def write(self, data: bytes) -> None:
        """Gives input; empty data ends it (in a terminal as Ctrl-D does). Waits while the command takes none; does
        nothing once it has ended."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Does nothing without a terminal, or once the command has ended."""
        ...

    async def wait(self) -> int:
        """The exit code, once the output has ended (what was not read of it is lost); 128 + N where signal N ended it,
        127 where there is no such command. Raises BackendError where nobody knows."""
        ...

    async def close(self) -> None:
        """Nothing of the command is left, unless it had ended by itself. Idempotent."""
        ...


@dataclass(frozen=True)
class Stats:
    """CPU time and bytes since the start of the instance, memory now and at its peak; 0 where nothing tells.

    All but the memory now only grow, also from one agent to the next."""

    cpu_millis: int
    memory_kib: int
    memory_peak_kib: int = 0
    network_received_bytes: int = 0
    network_sent_bytes: int = 0
    block_read_bytes: int = 0
    block_written_bytes: int = 0


class DeployBackend(Protocol):
    """Runs workloads. Every verb raises `BackendUnavailable` where the engine does not answer.

    Only instances that carry this agent's owner label are ever listed or touched.
    """

    async def probe(self) -> BackendFacts:
        """Facts and health; never raises."""
        ...

    async def prepare(self, workload: Workload, progress: Callable[[Progress], None]) -> None:
        """Afterwards everything to start is on the device, verified by digest, and a power cut does not take it away. A
        second call returns at once.

        What was fetched of it before a break is not fetched again. Raises BackendError: retryable for a registry that
        does not answer and "DiskFull", beforehand and with the numbers, for what cannot fit; final where the artifact
        does not exist or is for another platform, and Unsupported for what `Capabilities` lacks. ArtifactDamaged where
        it is damaged and cannot be replaced.
        """
        ...

    async def start(self, workload: Workload) -> Handle:
        """Afterwards a new instance of a prepared workload runs, within its limits; it may die the next moment.

        Not idempotent: the caller removes an older instance of the same workload first; one that is left over is
        replaced only if it does not run. On an error nothing of the new instance is left behind.
        Raises BackendError: retryable "PortInUse", "DiskFull"; final "CommandNotFound", "NotPrepared", ....
        ArtifactDamaged where it is to be prepared again.
        """
        ...

    async def list(self) -> Sequence[Observed]:
        """All instances owned by this agent, running or not, with exit codes. This is the truth."""
        ...

    def watch(self) -> AsyncIterator[None]:
        """Yields soon after something changed by itself (an instance died). Hints only: `list` is the truth."""
        ...

    async def stop(self, handle: Handle, grace: float) -> None:
        """TERM, `grace` seconds, KILL; afterwards it does not run. Idempotent; also for one that is gone."""
        ...

    async def remove(self, handle: Handle) -> None:
        """Nothing of the instance is left, its log included. Idempotent. Kills what still runs."""
        ...

    def logs(self, handle: Handle, query: LogQuery) -> AsyncIterator[LogLine]:
        """Lines in order of writing, none lost at rotation; with `follow` until the instance is removed or the
        iterator is closed, else until the last line written so far."""
        ...

    async def exec(self, handle: Handle, command: Sequence[str], timeout: float) -> ExecResult:
        """Runs a command inside; killed after `timeout` seconds (BackendError "ExecTimeout", retryable)."""
        ...

    async def open_exec(self, handle: Handle, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession:
        """A command inside with input and output, in a terminal where one is given, which has that size at once or gets
        it (SIGWINCH) a moment later. The caller closes it; what an agent that was killed has left open is killed by the
        first `list` of the next one.

        Raises BackendError "NotRunning" (retryable) where nothing runs, Unsupported for a terminal that cannot be.
        """
        ...

    async def listens(self, handle: Handle, port: str) -> bool | None:
        """Whether something inside listens at this port (by its name), as far as others than itself can reach it; None
        where the backend cannot tell. What accepts connections on the device may be a forwarder, which is no evidence.
        """
        ...

    async def stats(self, handle: Handle) -> Stats:
        """Raises BackendError "NotRunning" (retryable) where nothing runs."""
        ...

    async def prune(self, keep: frozenset[str]) -> None:
        """Artifacts whose digest is not in `keep` and that no instance uses are gone; only those that this agent
        fetched."""
        ...

    async def forget(self, deployment_id: str | None) -> None:
        """What is kept for the deployment itself is gone: its volumes; of all deployments of this agent for None.
        Idempotent. The caller has removed its instances before."""
        ...

    async def close(self) -> None:
        """Connections and watchers are closed; instances run on."""
        ...
