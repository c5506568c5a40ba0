"""The contract over the shipped `FakeBackend`, and what tests steer in it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from edge_agent.runtime.backend import BackendError, DeployBackend, ExecResult, Handle
from edge_agent.runtime.fake_backend import FakeBackend, FakeEngine, FakeImage, FakeInstance, FakeProgram
from edge_agent.runtime.model import Artifact, Check, CommandProbe, Port, Workload
from tests.contract.backend_contract import BackendContract
from tests.contract.machine import MUCH, Command, Program, has_ended, ignore

PROGRAMS = {
    Program.POLITE: FakeProgram(listens=False),
    Program.STUBBORN: FakeProgram(ignores_term=True, lines=("ready",)),
    Program.FAILS: FakeProgram(runs_for=0, exit_code=3),
    Program.FAILS_SOON: FakeProgram(runs_for=0.1, exit_code=7),
    Program.WRITES: FakeProgram(lines=tuple(f"line {number}" for number in range(1, 6))),
    Program.NO_COMMAND: FakeProgram(start_error=BackendError("CommandNotFound", "no such command", retryable=False)),
    Program.SERVES: FakeProgram(),
    Program.WORKS: FakeProgram(),
}

COMMANDS = {
    Command.ECHO: ("cat",),
    Command.BOTH: ("both",),
    Command.ENDS: ("exit", "7"),
    Command.SIZE: ("size",),
    Command.MUCH: ("much", str(MUCH)),
    Command.LASTS: ("lasts",),
    Command.NONE: ("nonesuch",),
}


class FakeMachine:
    """A `Machine` in memory."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.engine.exec_result = run_command
        self.backend: DeployBackend = FakeBackend(self.engine, "mine")
        self._numbers = itertools.count(1)
        for program, behaviour in PROGRAMS.items():
            self.engine.add_image(f"sha256:{program.name}", FakeImage(program=behaviour))

    def workload(self, program: Program, *, host_port: int | None = None, revision: int = 1) -> Workload:
        name = f"deployment-{next(self._numbers)}"
        artifact = Artifact("registry/tiny", f"sha256:{program.name}", "linux/amd64")
        ports = () if host_port is None else (Port("http", 8080, host_port),)
        return Workload(name, revision, name, "alice", "demo", artifact, Check(CommandProbe(("true",))), ports=ports)

    def _with_image(self, digest: str) -> Workload:
        workload = self.workload(Program.POLITE)
        return replace(workload, artifact=replace(workload.artifact, digest=digest))

    def missing(self) -> Workload:
        return self._with_image("sha256:nowhere")

    def unreachable(self) -> Workload:
        error = BackendError("ImagePullFailed", "connection refused", retryable=True)
        self.engine.add_image("sha256:unreachable", FakeImage(error=error))
        return self._with_image("sha256:unreachable")

    def foreign(self) -> Workload:
        error = BackendError("WrongArchitecture", "it is for linux/s390x", retryable=False)
        self.engine.add_image("sha256:foreign", FakeImage(error=error))
        return self._with_image("sha256:foreign")

    async def fresh_image(self, workload: Workload) -> Workload:
        digest = f"{workload.artifact.digest}-{next(self._numbers)}"
        self.engine.add_image(digest, FakeImage(program=self.engine.images[workload.artifact.digest].program))
        return replace(workload, artifact=replace(workload.artifact, digest=digest))

    @asynccontextmanager
    async def other_owner(self) -> AsyncIterator[DeployBackend]:
        yield FakeBackend(self.engine, "other")

    async def restart_agent(self) -> None:
        self.backend = FakeBackend(self.engine, "mine")

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        self.engine.unavailable = "nothing answers"
        yield
        self.engine.unavailable = ""

    async def kill(self, handle: Handle) -> None:
        self.engine.crash(handle, 137)

    def command(self, command: Command) -> Sequence[str]:
        return COMMANDS[command]

    async def lasting(self, handle: Handle) -> int:
        """Each counts for its child, too."""
        return 2 * [one.command for one in self.engine.instances[handle].commands].count(("lasts",))

    async def free_port(self) -> int:
        return 10000 + next(self._numbers)

    @asynccontextmanager
    async def taken_port(self) -> AsyncIterator[int]:
        self.engine.taken_ports.add(8080)
        yield 8080
        self.engine.taken_ports.discard(8080)


def run_command(_: FakeInstance, command: Sequence[str]) -> ExecResult:
    return ExecResult(4, b"out\n") if "echo out; exit 4" in command else ExecResult(0, b"")


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


class TestFakeBackend(BackendContract):
    async def test_command_that_takes_too_long_is_killed(self, machine: FakeMachine) -> None:  # type: ignore[override]
        machine.engine.exec_seconds = 1000
        await super().test_command_that_takes_too_long_is_killed(machine)


async def test_fetch_with_a_gate_stands_still_half_way(machine: FakeMachine) -> None:
    gate = asyncio.Event()
    workload = machine.workload(Program.POLITE)
    machine.engine.images[workload.artifact.digest].gate = gate
    seen = asyncio.Queue[int]()
    preparing = asyncio.ensure_future(
        machine.backend.prepare(workload, lambda progress: seen.put_nowait(progress.fetched_bytes))
    )
    assert [await seen.get(), await seen.get()] == [0, 500]
    assert not preparing.done()
    gate.set()
    await preparing
    assert workload.artifact.digest in machine.engine.present


async def test_verb_that_is_to_fail_next_fails_once(machine: FakeMachine) -> None:
    machine.engine.fail_next("start", BackendError("DiskFull", "no space", retryable=True))
    workload = machine.workload(Program.POLITE)
    await machine.backend.prepare(workload, ignore)
    with pytest.raises(BackendError, match="no space"):
        await machine.backend.start(workload)
    await machine.backend.start(workload)
    assert [verb for verb, _ in machine.engine.calls] == ["prepare", "start", "start"]


async def test_power_cut_ends_all_instances_and_keeps_images(machine: FakeMachine) -> None:
    workload = machine.workload(Program.POLITE)
    await machine.backend.prepare(workload, ignore)
    await machine.backend.start(workload)
    machine.engine.power_cut()
    assert [has_ended(seen) for seen in await machine.backend.list()] == [True]
    assert workload.artifact.digest in machine.engine.present
