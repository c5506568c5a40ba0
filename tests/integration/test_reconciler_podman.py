"""The reconciler over real Podman on a simulated device: bad days of real containers."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import Handle, LogQuery
from edge_agent.runtime.database import AgentDatabase
from edge_agent.runtime.kept_logs import KeptLogs
from edge_agent.runtime.model import Artifact, Check, CommandProbe, Desired, Port, State, Workload
from edge_agent.runtime.reconciler import Reconciler
from edge_agent.runtime.status import state_of
from longshore.v1.types_pb2 import InstanceStatus
from tests.support.podman_machine import PodmanMachine, PodmanSite, podman_site
from tests.support.workloads import until

SERVES = "echo serving; touch /tmp/ready; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
CRASHES = "echo no model here >&2; exit 3"
NEVER_READY = "echo still loading; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
ASKS = CommandProbe(("sh", "-c", "test -e /tmp/ready"))
OWNERS = itertools.count(1)

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-reconciler"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    async with podman_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(site: PodmanSite) -> Artifact:
    return await site.image()


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: PodmanSite) -> AsyncIterator[PodmanMachine]:
    async with PodmanMachine(site, f"reconciled-{next(OWNERS)}") as made:
        yield made


class Agent:
    """A reconciler that steers the containers of one machine."""

    def __init__(self, machine: PodmanMachine, database: AgentDatabase, kept_logs: KeptLogs) -> None:
        self.reconciler = Reconciler(machine.backend, database, "10.0.0.7", lambda: None, kept_logs=kept_logs)
        self._database = database
        self._kept_logs = kept_logs

    def previous_lines(self, workload: Workload) -> list[str] | None:
        """What is kept of the instance before."""
        found = self._kept_logs.read(workload.deployment_id, LogQuery())
        return None if found is None else [line.text for line in found]

    def wish(self, *workloads: Workload) -> None:
        self.reconciler.set_desired(Desired(1, workloads))

    def status(self, workload: Workload) -> InstanceStatus | None:
        statuses = self.reconciler.statuses()
        return next((s for s in statuses if s.deployment_id == workload.deployment_id), None)

    def handle(self, workload: Workload) -> Handle:
        found = self.reconciler.handle_of(workload.deployment_id)
        assert found is not None
        return found

    async def settle(self, *workloads: Workload) -> None:
        """Wishes for these; returns once each of them is ready."""
        self.wish(*workloads)
        for workload in workloads:
            await self.until(workload, State.RUNNING, "Ready")

    async def until(self, workload: Workload, state: State, reason: str, revision: int = 1) -> InstanceStatus:
        def so() -> bool:
            status = self.status(workload)
            shown = status and (state_of(status), status.reason, status.revision)
            return shown == (state, reason, revision)

        try:
            await until(so, seconds=60)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status(workload)}; {self.reconciler.condition}") from error
        status = self.status(workload)
        assert status is not None
        return status

    def told(self) -> list[tuple[int, State, str]]:
        entries = self._database.unacknowledged(1000)
        return [(e.instance.revision, state_of(e.instance), e.instance.reason) for e in entries]


@asynccontextmanager
async def agent_on(machine: PodmanMachine, folder: Path) -> AsyncIterator[Agent]:
    database = AgentDatabase(folder / "agent.db")
    agent = Agent(machine, database, KeptLogs(folder / "previous-logs"))
    task = asyncio.create_task(agent.reconciler.run())
    try:
        yield agent
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        database.close()


def service(site: PodmanSite, artifact: Artifact, script: str = SERVES, port: int | None = None) -> Workload:
    ports = () if port is None else (Port("http", 8080, port),)
    made = site.workload(artifact, script, ports=ports)
    return replace(made, readiness=Check(ASKS, period=0.5, timeout=5.0, deadline=30.0), stop_grace=2.0)


def revised(workload: Workload, script: str, **changes: object) -> Workload:
    made = replace(workload, revision=workload.revision + 1, entrypoint=("sh", "-c", script))
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_an_update_replaces_a_container_and_a_restart_of_the_agent_leaves_it_alone(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    first = service(site, artifact)
    second = revised(first, SERVES)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(first)
        agent.wish(second)
        await agent.until(second, State.RUNNING, "Ready", revision=2)
        handle = agent.handle(first)
        told = agent.told()
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(second)
        await agent.until(second, State.RUNNING, "Ready", revision=2)
        assert agent.handle(first) == handle
        assert agent.told() == told
        await until(lambda: agent.previous_lines(first) == ["serving"], seconds=60)
        agent.wish()
        await until(lambda: agent.status(first) is None, seconds=60)
        assert agent.previous_lines(first) is None
    assert await machine.backend.list() == []


async def test_an_update_that_crashes_at_start_returns_to_the_container_before(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    first = service(site, artifact)
    second = revised(first, CRASHES)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(first)
        agent.wish(second)
        status = await agent.until(second, State.RUNNING, "RolledBack", revision=1)
        assert status.ready
        assert list(status.last_lines) == ["no model here"]
        assert (2, State.FAILED, "CrashLoop") in agent.told()


async def test_a_container_that_crashes_at_start_backs_off_with_its_last_lines(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    workload = service(site, artifact, CRASHES)
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(workload)
        status = await agent.until(workload, State.BACKOFF, "CrashLoop")
        assert status.exit_code == 3
        assert list(status.last_lines) == ["no model here"]
        assert not any(state is State.RUNNING for _, state, _ in agent.told())


async def test_a_container_that_never_becomes_ready_is_stopped_at_its_deadline(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    workload = service(site, artifact, NEVER_READY)
    workload = replace(workload, readiness=replace(workload.readiness, deadline=1.0))
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(workload)
        status = await agent.until(workload, State.BACKOFF, "ReadinessDeadline")
        assert list(status.last_lines) == ["still loading"]


async def test_a_port_that_is_taken_is_waited_for(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    holder, waiter = service(site, artifact, port=18080), service(site, artifact, port=18080)
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(holder)
        status = await agent.until(holder, State.RUNNING, "Ready")
        assert [endpoint.port for endpoint in status.endpoints] == [18080]
        agent.wish(holder, waiter)
        status = await agent.until(waiter, State.BACKOFF, "PortInUse")
        assert "18080" in status.message
        agent.wish(waiter)
        await agent.until(waiter, State.RUNNING, "Ready")


async def test_a_container_that_is_killed_is_started_again(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    workload = service(site, artifact)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)
        await machine.backend.stop(agent.handle(workload), 0.0)
        await agent.until(workload, State.BACKOFF, "Exited")
        status = await agent.until(workload, State.RUNNING, "Ready")
        assert status.restarts == 1


async def test_after_a_power_cut_with_no_network_the_container_runs_again_at_once(
    site: PodmanSite, artifact: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    workload = service(site, artifact)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)
        told = agent.told()
    await site.device.power_cut()
    await site.device.boot()
    await site.device.link(False)
    try:
        await machine.restart_agent()
        async with agent_on(machine, tmp_path) as agent:
            agent.wish(workload)
            status = await agent.until(workload, State.RUNNING, "Ready")
            assert status.restarts == 1
            assert State.BACKOFF not in [state for _, state, _ in agent.told()[len(told) :]]
    finally:
        await site.device.link(True)
