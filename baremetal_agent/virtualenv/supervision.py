"""Instances under a supervisor of our own, each."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

import structlog

from baremetal_agent.supervisor.output import PIPES
from baremetal_agent.supervisor.records import LAUNCH, STATUS, number
from baremetal_agent.virtualenv import bubblewrap
from baremetal_agent.virtualenv.cgroups import Joined
from baremetal_agent.virtualenv.entering import entering
from baremetal_agent.virtualenv.forking import Stem, python
from baremetal_agent.virtualenv.instances import LOG, Ended, Instance, Instances, Started
from baremetal_agent.virtualenv.launcher import Launch, Means
from baremetal_agent.virtualenv.placing import RLIMIT, Placing, start_failed
from baremetal_agent.virtualenv.processes import descendants, end_all, is_same, marked
from baremetal_agent.virtualenv.starting import MARKER
from baremetal_agent.virtualenv.supervised import described
from edge_agent.runtime.backend import BackendError, LogLine, LogQuery, Stats
from edge_agent.runtime.deaths import wait_for_end
from edge_agent.runtime.log_file import read_log
from edge_agent.runtime.metering import Meter

log = structlog.get_logger()

# How long a supervisor may take to write down how a dead workload ended.
SETTLE_SECONDS = 5.0
START_SECONDS = 30.0


class Supervision:
    """`Launcher` with a small process for each instance, which outlives the agent; `placing` says where it is put."""

    def __init__(self, instances: Instances, boot: str, placing: Placing) -> None:
        self._instances = instances
        self._boot = boot
        self._placing = placing
        self._meter = Meter()
        self._stem = Stem()
        self._means: Means | None = None

    @property
    def name(self) -> str:
        return self._placing.name

    def group(self, owner: str, instance_id: str) -> str:
        return self._placing.group(owner, instance_id)

    async def means(self) -> Means:
        # What is lacking may have been installed meanwhile.
        if self._means is None or self._means.lacking:
            before, self._means = self._means, await self._look()
            if self._means.lacking and before is None:
                log.warning("no_sandbox", why=self._means.lacking)
        return self._means

    async def _look(self) -> Means:
        if self._placing.forks:
            self._stem.ready()
        lacking = await bubblewrap.usable()
        isolation = "" if lacking else "bubblewrap"
        return Means(*self._placing.limits(isolation), isolation, self._placing.name, lacking)

    async def start(self, launch: Launch) -> Started:
        means = await self.means()
        joined = self._join(launch)
        with contextlib.ExitStack() as kept:
            self._describe(launch, joined, means)
            ahead = self._fork(launch.instance, joined, kept) if self._placing.forks else None
            if ahead is None:
                await self._spawn(launch.instance, lambda argv: self._placing.starting(launch, argv))
            else:
                await self._go_on(launch.instance, *ahead)
        started = self._instances.started(launch.instance)
        if started is None:
            raise BackendError("StartFailed", f"{launch.instance.name} left no trace of its start", retryable=True)
        return started

    def _fork(self, instance: Instance, joined: Joined, kept: contextlib.ExitStack) -> tuple[int, int] | None:
        """Ends of the pipes from which a supervisor's report comes, and which it waits at; None where none can be had
        in this way. The workload's process enters its groups meanwhile."""
        lock = self._instances.lock(instance)
        if lock is None:
            return None
        with contextlib.ExitStack() as given:
            given.callback(os.close, lock)
            reading, writing = _pipe(kept, given)
            waiting, go = _pipe(given, kept)
            there = self._stem.fork(self._instances.path(instance.id), joined.folders, (lock, writing, waiting))
        return (reading, go) if there else None

    def _describe(self, launch: Launch, joined: Joined, means: Means) -> None:
        folder = self._instances.path(launch.instance.id)
        for pipe in PIPES.values():
            os.mkfifo(folder / pipe, 0o600)
        fields = described(launch, joined, confined=bool(means.isolation), grouped=means.limits_by != RLIMIT)
        (folder / LAUNCH).write_bytes(b"".join(f"{key}={value}\0".encode() for key, value in fields))

    async def _go_on(self, instance: Instance, reading: int, go: int) -> None:
        supervisor, outcome = await _report(reading, go)
        if not supervisor:
            # The one that was to fork it has ended, or hangs.
            self._stem.close()
        _require_started(instance, outcome)

    def _join(self, launch: Launch) -> Joined:
        try:
            return self._placing.prepare(launch)
        except OSError as error:
            message = f"cannot limit {launch.instance.name}: {error}"
            raise BackendError("StartFailed", message, retryable=True) from error

    async def _spawn(self, instance: Instance, place: Callable[[list[str]], Sequence[str]], *mode: str) -> None:
        """Afterwards a supervisor lives where `place` puts it, or has done its work. Raises BackendError with why
        nothing runs."""
        lock = self._instances.lock(instance)
        if lock is None:
            return
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as given:
            given.callback(os.close, lock)
            reading, writing = _pipe(kept, given)
            argv = [*python("main", "main"), str(self._instances.path(instance.id)), str(lock), str(writing), *mode]
            problem = await _begin(place(argv), (lock, writing))
            if problem is not None:
                raise await self._placing.refusal(instance.name, problem)
            # The lock stays for as long as the supervisor has the file open.
            given.close()
            _, outcome = await _report(reading)
            _require_started(instance, outcome)

    async def attend(self, instance: Instance) -> Ended | None:
        ended = self._instances.ended(instance)
        if ended is not None:
            return ended
        started = self._instances.started(instance)
        if started is None and self._instances.supervisor(instance):
            # Of an agent that was killed while it started this; the supervisor goes on.
            return None
        if started is not None and is_same(started.pid, started.began):
            await self._replace(instance)
            return None
        await self._settle(instance)
        return self._instances.ended(instance) or self._lost(instance)

    async def _replace(self, instance: Instance) -> None:
        if not self._instances.supervisor(instance):
            log.warning("supervisor_lost", instance=instance.id, deployment=instance.deployment_id)
            try:
                await self._spawn(instance, lambda argv: self._placing.replacing(instance, argv), "adopt")
            except (BackendError, OSError) as error:
                log.error("supervisor_not_replaced", instance=instance.id, error=str(error))

    async def _settle(self, instance: Instance) -> None:
        """Its process has gone; its supervisor is about to write down how it ended, unless that is gone too."""
        supervisor = self.watch(instance)
        if supervisor is not None:
            try:
                await wait_for_end(supervisor, SETTLE_SECONDS)
            finally:
                os.close(supervisor)

    def _lost(self, instance: Instance) -> Ended:
        """An end that nobody was left to note, noted now."""
        status = self._instances.path(instance.id) / STATUS
        code = number(status.read_text(), "exit-code") if status.exists() else None
        cut_off = "MonitorLost" if instance.boot == self._boot else "PowerLost"
        ended = Ended(code, status.stat().st_mtime) if code is not None else Ended(None, 0.0, cut_off)
        self._instances.note_end(instance, ended)
        return ended

    def watch(self, instance: Instance) -> int | None:
        pid = self._instances.supervisor(instance)
        try:
            supervisor = os.pidfd_open(pid)
        except OSError:
            return None
        # Only one that still holds the instance, whatever its number has come to mean.
        if self._instances.supervisor(instance) == pid:
            return supervisor
        os.close(supervisor)
        return None

    async def kill(self, instance: Instance) -> None:
        started = self._instances.started(instance)
        if started is None or not is_same(started.pid, started.began):
            return
        # Who watches over it has to see its end.
        group = {*self._placing.cgroups.processes(instance.cgroup)} - {self._instances.supervisor(instance)}
        # With the first process of a namespace all others end.
        for pid in [started.init] if started.init else [*group, started.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def clear(self, instance: Instance) -> None:
        if not await end_all(lambda: self._left(instance)):
            log.error("instance_does_not_end", instance=instance.id, deployment=instance.deployment_id)
        await self._placing.clear(instance)

    async def leave(self) -> None:
        await self._placing.leave()

    def close(self) -> None:
        self._stem.close()

    def _left(self, instance: Instance) -> Iterator[int]:
        """A supervisor that hangs, and what of a start that failed runs with nobody to watch over it."""
        if hanging := self._instances.supervisor(instance):
            # These first: without their parent they are not found by it.
            yield from descendants(hanging)
            yield hanging
        yield from self._placing.cgroups.processes(instance.cgroup)
        if self._instances.started(instance) is None:
            yield from marked(MARKER, instance.id)

    async def logs(self, instance: Instance, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        async with contextlib.aclosing(read_log(self._instances.path(instance.id) / LOG, query)) as lines:
            async for line in lines:
                yield line

    def entering(self, instance: Instance, started: Started, command: Sequence[str], *, terminal: bool) -> list[str]:
        groups = self._placing.cgroups.folders(instance.cgroup)
        return entering(started, instance.confinement, groups, command, apart=instance.apart, terminal=terminal)

    def processes(self, instance: Instance, started: Started) -> Iterable[int]:
        return (started.pid, *descendants(started.init or started.pid))

    def stats(self, instance: Instance, started: Started) -> Stats:
        counted = self._meter.of_groups(self._placing.cgroups.places(instance.cgroup), started.pid)
        return counted or self._meter.of_processes(self.processes(instance, started), started.pid)


def _pipe(readers: contextlib.ExitStack, writers: contextlib.ExitStack) -> tuple[int, int]:
    """Its two ends, each of which is closed with its stack."""
    reading, writing = os.pipe()
    readers.callback(os.close, reading)
    writers.callback(os.close, writing)
    return reading, writing


async def _begin(argv: Sequence[str], descriptors: tuple[int, ...]) -> str | None:
    """Runs what is to leave a supervisor behind to its end; what it said, where that was a failure."""
    # No pipe: the supervisor keeps it open, and nobody reads it any more.
    said = os.memfd_create("said")
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, pass_fds=descriptors, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        code = await _end_of(process)
        words = " ".join(os.pread(said, 4096, 0).decode(errors="replace").split())
        return (words or f"{argv[0]} ended with {code}") if code else None
    finally:
        os.close(said)


async def _end_of(process: asyncio.subprocess.Process) -> int:
    """Exit code of the one that leaves a supervisor behind; if nobody waits any more, or for too long, it leaves none
    if that can be."""
    try:
        async with asyncio.timeout(START_SECONDS):
            return await process.wait()
    except (asyncio.CancelledError, TimeoutError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        code = await process.wait()
        if isinstance(error, TimeoutError):
            return code
        raise


async def _report(reading: int, go: int | None = None) -> tuple[int, str]:
    """The number of the supervisor, 0 where it has not said that in time, and "ok" or why nothing runs. It is told to
    go on once it is known: one that hangs can be ended."""
    said = b""
    try:
        async with asyncio.timeout(START_SECONDS):
            while piece := await _readable(reading):
                if go is not None and not said:
                    _tell(go)
                said += piece
    except TimeoutError:
        hanging = _number(said)
        said = (said if hanging else b"\n") + b"nothing is heard of it"
        if hanging:
            await end_all(lambda: (*descendants(hanging), hanging))
    return _number(said), said.decode(errors="replace").partition("\n")[2]


def _number(said: bytes) -> int:
    first, line_end, _ = said.partition(b"\n")
    return int(first) if line_end and first.isdigit() else 0


def _tell(go: int) -> None:
    # One that has ended already is heard of by its report.
    with contextlib.suppress(BrokenPipeError):
        os.write(go, b"1")


def _require_started(instance: Instance, outcome: str) -> None:
    if outcome != "ok":
        raise start_failed(instance.name, outcome or "its supervisor ended at once")


async def _readable(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 4096)
