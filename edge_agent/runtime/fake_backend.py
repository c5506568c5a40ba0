"""A `DeployBackend` that keeps everything in memory, for tests and for trying an agent without an engine.

`FakeEngine` is what lies below: which images exist, what their programs do, which ports are taken, whether it answers.
Tests steer it; it outlives a `FakeBackend` as Podman outlives an agent, and several backends (owners) may share one.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edge_agent.runtime.backend import (
    BackendError,
    BackendFacts,
    BackendUnavailable,
    Capabilities,
    ExecResult,
    Handle,
    LogLine,
    LogQuery,
    Observed,
    Phase,
    Progress,
    Stats,
    TerminalSize,
    Unsupported,
)
from edge_agent.runtime.bell import Bell
from edge_agent.runtime.fake_exec import FakeExec
from edge_agent.runtime.fitting import refuse_unsupported
from edge_agent.runtime.model import ArtifactKind, Workload

HANDLE_VERSION = 1
ALL_CAPABILITIES = Capabilities(
    artifacts=frozenset(ArtifactKind),
    exec=True,
    tty=True,
    stats=True,
    mounts=True,
    volumes=True,
    project_volumes=True,
    secrets=True,
    devices=True,
    cpu_limit=True,
    memory_limit=True,
    pids_limit=True,
    shared_memory_limit=True,
    cpu_set=True,
)
Address = tuple[str, int]


@dataclass(frozen=True)
class FakeProgram:
    """What an image does once started: runs `runs_for` seconds (None: until it is stopped), then exits. `listens` at
    its ports meanwhile (None: nobody can tell)."""

    runs_for: float | None = None
    exit_code: int = 0
    lines: tuple[str, ...] = ()
    ignores_term: bool = False
    listens: bool | None = True
    start_error: BackendError | None = None


@dataclass
class FakeImage:
    """An image in the registry. `error` is raised by each prepare while it is set; `seconds` is how long a fetch takes;
    with a `gate`, a fetch stands half-way until the gate is set."""

    size: int = 1000
    program: FakeProgram = field(default_factory=FakeProgram)
    seconds: float = 0.0
    gate: asyncio.Event | None = None
    error: BackendError | None = None


@dataclass
class FakeInstance:
    """An instance as the engine knows it."""

    handle: Handle
    owner: str
    workload: Workload
    program: FakeProgram
    addresses: tuple[tuple[str, Address], ...]
    started_at: float
    finished_at: float = 0.0
    exit_code: int | None = None
    exit_reason: str = ""
    removed: bool = False
    # Those that were opened inside and have not ended.
    commands: list[FakeExec] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)

    @property
    def runs(self) -> bool:
        return self.exit_code is None

    def observed(self) -> Observed:
        return Observed(
            handle=self.handle,
            deployment_id=self.workload.deployment_id,
            revision=self.workload.revision,
            artifact_digest=self.workload.artifact.digest,
            phase=Phase.RUNNING if self.runs else Phase.EXITED,
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=self.exit_code,
            exit_reason=self.exit_reason,
            addresses=self.addresses if self.runs else (),
        )


class FakeEngine:
    """The engine and the registry below `FakeBackend`; all attributes are for tests to read and to change."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.images: dict[str, FakeImage] = {}
        self.present: set[str] = set()
        self.fetched_by: dict[str, set[str]] = {}
        self.instances: dict[Handle, FakeInstance] = {}
        self.taken_ports: set[int] = set()
        # (deployment id, name) of each volume.
        self.volumes: set[tuple[str, str]] = set()
        # Set to a sentence: every verb raises BackendUnavailable with it. Instances run on.
        self.unavailable = ""
        # Where the named port of a deployment answers, instead of an address that nothing listens at.
        self.addresses: dict[tuple[str, str], Address] = {}
        self.exec_result: Callable[[FakeInstance, Sequence[str]], ExecResult] = lambda *_: ExecResult(0, b"")
        self.exec_seconds = 0.0
        self.capabilities = ALL_CAPABILITIES
        # (verb, deployment id or handle value), in order; what a test asks to see that nothing was touched.
        self.calls: list[tuple[str, str]] = []
        self.bell = Bell()
        self._numbers = itertools.count(1)
        self._next_errors: dict[str, list[Exception]] = {}

    def add_image(self, digest: str, image: FakeImage | None = None, *, present: bool = False) -> FakeImage:
        """Puts an image into the registry, and with `present` onto the device as well."""
        self.images[digest] = image or FakeImage()
        if present:
            self.present.add(digest)
        return self.images[digest]

    def fail_next(self, verb: str, error: Exception) -> None:
        """The next call of this verb ("prepare", "start", "list", "stop", ...) raises; several calls queue up."""
        self._next_errors.setdefault(verb, []).append(error)

    def enter(self, verb: str, subject: str = "") -> None:
        """What every verb does first: be recorded, and fail where a test wants it."""
        self.calls.append((verb, subject))
        if self.unavailable:
            raise BackendUnavailable("EngineUnavailable", self.unavailable)
        if queued := self._next_errors.get(verb):
            raise queued.pop(0)

    def running(self) -> list[FakeInstance]:
        return [instance for instance in self.instances.values() if instance.runs]

    def of(self, deployment_id: str) -> list[FakeInstance]:
        """The instances of a deployment, oldest first."""
        return [found for found in self.instances.values() if found.workload.deployment_id == deployment_id]

    def crash(self, handle: Handle, exit_code: int = 1, reason: str = "") -> None:
        """The instance dies by itself now."""
        self.finish(self.instances[handle], exit_code, reason)

    def power_cut(self) -> None:
        """Everything stops at once; what is stored stays."""
        for instance in self.running():
            self.finish(instance, 137, "PowerCut")

    def write(self, handle: Handle, text: str, stream: str = "stdout") -> None:
        """The instance writes a line."""
        instance = self.instances[handle]
        instance.lines.append(LogLine(self.clock(), stream, text))
        instance.bell.ring()

    def finish(self, instance: FakeInstance, exit_code: int, reason: str = "") -> None:
        if instance.runs:
            instance.exit_code, instance.exit_reason, instance.finished_at = exit_code, reason, self.clock()
            for command in list(instance.commands):
                command.kill()
            instance.bell.ring()
            self.bell.ring()

    def launch(self, owner: str, workload: Workload) -> FakeInstance:
        """Starts an instance whose preconditions were checked."""
        number = next(self._numbers)
        program = self.images[workload.artifact.digest].program
        instance = FakeInstance(
            handle=Handle(HANDLE_VERSION, f"fake-{number}"),
            owner=owner,
            workload=workload,
            program=program,
            addresses=tuple(self._addresses(workload, 20000 + 100 * number)),
            started_at=self.clock(),
        )
        self.instances[instance.handle] = instance
        self.volumes |= {(workload.deployment_id, volume.name) for volume in workload.volumes}
        for line in program.lines:
            self.write(instance.handle, line)
        if program.runs_for is not None:
            self._finish_later(instance, program.runs_for)
        return instance

    def _finish_later(self, instance: FakeInstance, seconds: float) -> None:
        if seconds <= 0:
            self.finish(instance, instance.program.exit_code)
        else:
            asyncio.get_running_loop().call_later(seconds, self.finish, instance, instance.program.exit_code)

    def _addresses(self, workload: Workload, first_free: int) -> Iterator[tuple[str, Address]]:
        for offset, port in enumerate(workload.ports):
            given = self.addresses.get((workload.deployment_id, port.name))
            yield port.name, given or ("127.0.0.1", port.host_port or first_free + offset)


class FakeBackend:
    """`DeployBackend` over a `FakeEngine`."""

    def __init__(self, engine: FakeEngine | None = None, owner: str = "fake") -> None:
        self.engine = engine or FakeEngine()
        self.owner = owner
        self._closed = asyncio.Event()
        self._opened: set[FakeExec] = set()

    async def probe(self) -> BackendFacts:
        problem = f"EngineUnavailable: {self.engine.unavailable}" if self.engine.unavailable else ""
        return BackendFacts("fake", "1", self.engine.capabilities, problem)

    async def prepare(self, workload: Workload, progress: Callable[[Progress], None]) -> None:
        digest = workload.artifact.digest
        self.engine.enter("prepare", workload.deployment_id)
        refuse_unsupported(workload, self.engine.capabilities)
        if digest not in self.engine.present:
            await self._fetch(workload, progress)
            self.engine.present.add(digest)
            self.engine.fetched_by.setdefault(digest, set()).add(self.owner)

    async def _fetch(self, workload: Workload, progress: Callable[[Progress], None]) -> None:
        image = self.engine.images.get(workload.artifact.digest)
        if image is None:
            raise BackendError("ImageNotFound", f"no image {workload.artifact.reference}", retryable=False)
        if image.error:
            raise image.error
        progress(Progress(0, image.size))
        await asyncio.sleep(image.seconds / 2)
        progress(Progress(image.size // 2, image.size))
        if image.gate:
            await image.gate.wait()
        await asyncio.sleep(image.seconds / 2)
        progress(Progress(image.size, image.size))

    async def start(self, workload: Workload) -> Handle:
        self.engine.enter("start", workload.deployment_id)
        self._check_startable(workload)
        for old in self._of_workload(workload):
            await self.remove(old.handle)
        return self.engine.launch(self.owner, workload).handle

    def _check_startable(self, workload: Workload) -> None:
        digest = workload.artifact.digest
        refuse_unsupported(workload, self.engine.capabilities)
        if digest not in self.engine.present:
            raise BackendError("NotPrepared", f"{workload.artifact.reference} is not on the device", retryable=False)
        if any(old.runs for old in self._of_workload(workload)):
            raise BackendError("AlreadyRunning", f"{workload.name} runs already; remove it first", retryable=True)
        if error := self.engine.images[digest].program.start_error:
            raise error
        self._check_ports(workload)

    def _check_ports(self, workload: Workload) -> None:
        used = {address[1] for other in self.engine.running() for _, address in other.addresses}
        for port in workload.ports:
            if port.host_port and port.host_port in used | self.engine.taken_ports:
                message = f"port {port.host_port} ({port.name}) of this device is in use"
                raise BackendError("PortInUse", message, retryable=True)

    def _of_workload(self, workload: Workload) -> list[FakeInstance]:
        return [found for found in self._owned() if found.workload.key == workload.key]

    def _owned(self) -> list[FakeInstance]:
        return [instance for instance in self.engine.instances.values() if instance.owner == self.owner]

    async def list(self) -> Sequence[Observed]:
        self.engine.enter("list")
        for left in [command for instance in self._owned() for command in instance.commands]:
            if left not in self._opened:
                left.kill()
        return [instance.observed() for instance in self._owned()]

    async def watch(self) -> AsyncIterator[None]:
        with self.engine.bell.listen() as rung:
            while not self._closed.is_set():
                waits = [asyncio.ensure_future(event.wait()) for event in (rung, self._closed)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
                if rung.is_set():
                    rung.clear()
                    yield

    async def stop(self, handle: Handle, grace: float) -> None:
        self.engine.enter("stop", handle.value)
        instance = self._find(handle)
        if instance is None or not instance.runs:
            return
        if instance.program.ignores_term:
            await asyncio.sleep(grace)
        self.engine.finish(instance, 137 if instance.program.ignores_term else 143)

    async def remove(self, handle: Handle) -> None:
        self.engine.enter("remove", handle.value)
        instance = self._find(handle)
        if instance is not None:
            self.engine.finish(instance, 137)
            del self.engine.instances[handle]
            instance.removed = True
            instance.bell.ring()

    def _find(self, handle: Handle) -> FakeInstance | None:
        instance = self.engine.instances.get(handle)
        return instance if instance is not None and instance.owner == self.owner else None

    def _running(self, handle: Handle) -> FakeInstance:
        instance = self._find(handle)
        if instance is None or not instance.runs:
            raise BackendError("NotRunning", f"{handle.value} does not run", retryable=True)
        return instance

    async def logs(self, handle: Handle, query: LogQuery) -> AsyncIterator[LogLine]:
        self.engine.enter("logs", handle.value)
        instance = self._find(handle)
        if instance is None:
            raise BackendError("NoSuchInstance", f"{handle.value} does not exist", retryable=False)
        with instance.bell.listen() as rung:
            kept = [line for line in instance.lines if line.time >= query.since]
            position = len(instance.lines)
            for line in kept[-query.tail :] if query.tail else kept:
                yield line
            while query.follow and not instance.removed:
                await rung.wait()
                rung.clear()
                fresh, position = instance.lines[position:], len(instance.lines)
                for line in fresh:
                    yield line

    async def exec(self, handle: Handle, command: Sequence[str], timeout: float) -> ExecResult:
        self.engine.enter("exec", handle.value)
        instance = self._running(handle)
        if self.engine.exec_seconds > timeout:
            await asyncio.sleep(timeout)
            raise BackendError("ExecTimeout", f"{command[0]} ran longer than {timeout:g} s", retryable=True)
        await asyncio.sleep(self.engine.exec_seconds)
        return self.engine.exec_result(instance, command)

    async def open_exec(self, handle: Handle, command: Sequence[str], terminal: TerminalSize | None) -> FakeExec:
        self.engine.enter("open_exec", handle.value)
        if terminal is not None and not self.engine.capabilities.tty:
            raise Unsupported("this backend has no terminals")
        instance = self._running(handle)

        def ended(command: FakeExec) -> None:
            instance.commands.remove(command)
            self._opened.discard(command)

        made = FakeExec(command, terminal, ended)
        instance.commands.append(made)
        self._opened.add(made)
        return made

    async def listens(self, handle: Handle, port: str) -> bool | None:
        self.engine.enter("listens", handle.value)
        instance = self._find(handle)
        return instance.program.listens if instance is not None and instance.runs else False

    async def stats(self, handle: Handle) -> Stats:
        self.engine.enter("stats", handle.value)
        instance = self._running(handle)
        return Stats(int(1000 * (self.engine.clock() - instance.started_at)), memory_kib=1024, memory_peak_kib=2048)

    async def prune(self, keep: frozenset[str]) -> None:
        self.engine.enter("prune")
        used = {instance.workload.artifact.digest for instance in self.engine.instances.values()}
        for digest in self.engine.present - keep - used:
            if self.owner in self.engine.fetched_by.get(digest, set()):
                self.engine.present.discard(digest)

    async def forget(self, deployment_id: str | None) -> None:
        self.engine.enter("forget", deployment_id or "")
        for key in [key for key in self.engine.volumes if deployment_id in (None, key[0])]:
            self.engine.volumes.discard(key)

    async def close(self) -> None:
        self._closed.set()
        await asyncio.sleep(0)
