"""What is kept for a deployment beyond its instances, logs and volumes, and when it goes."""

from collections.abc import AsyncIterator

import pytest

from edge_agent.runtime.backend import BackendError, LogLine, LogQuery
from edge_agent.runtime.fake_backend import FakeProgram
from edge_agent.runtime.model import State, UpdateStrategy, Volume
from tests.integration.fake_fixtures import device
from tests.support.agent_on_fake import Device
from tests.support.workloads import make_workload, until

__all__ = ["device"]


def previous_lines(device: Device) -> list[str] | None:
    """What is kept of the instance before."""
    found = device.kept_logs.read("d1", LogQuery())
    return None if found is None else [line.text for line in found]


async def test_what_an_instance_said_is_kept_until_the_next_is_gone_or_its_deployment(device: Device) -> None:
    device.image(1, FakeProgram(lines=("revision 1",)))
    device.image(2, FakeProgram(lines=("revision 2",)))
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        device.engine.write(device.instance().handle, "my last words")
        device.engine.crash(device.instance().handle)
        await agent.until_shows(State.BACKOFF, "Exited")
        assert previous_lines(device) is None
        await agent.until_ready()
        assert previous_lines(device) == ["revision 1", "my last words"]
        agent.wish(make_workload(2))
        await agent.until_ready(revision=2)
        await until(lambda: previous_lines(device) == ["revision 1"])
        agent.wish(make_workload(2), stopped=frozenset({"d1"}))
        await until(lambda: previous_lines(device) == ["revision 2"])
        agent.wish()
        await until(lambda: agent.status() is None)
        assert previous_lines(device) is None


async def test_log_of_a_crashed_update_is_kept_and_not_the_one_of_what_ran_before(device: Device) -> None:
    device.image(1, FakeProgram(lines=("revision 1",)))
    crashing = device.image(2, FakeProgram(lines=("no such file",), runs_for=0.0, exit_code=1))
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        agent.wish(make_workload(2, update=UpdateStrategy.STOP_FIRST))
        await agent.until_shows(State.BACKOFF, "Exited", revision=2)
        crashing.program = FakeProgram(lines=("revision 2",))
        await agent.until_ready(revision=2)
        await until(lambda: len(device.engine.instances) == 1)
        assert previous_lines(device) == ["no such file"]


async def test_volumes_of_a_stopped_deployment_go_when_it_is_deleted(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        agent.wish(workload := make_workload(volumes=(Volume("data", "/data"),)))
        await agent.until_ready()
        agent.wish(workload, stopped=frozenset({"d1"}))
        await agent.until_shows(State.STOPPED, "StoppedByUser")
        assert device.engine.volumes == {("d1", "data")}
    async with device.agent() as agent:
        agent.wish()
        await until(lambda: device.engine.volumes == set())
        await until(lambda: agent.database.workloads() == [])


@pytest.mark.parametrize("stopped", [False, True])
async def test_volumes_go_with_their_deployment_also_after_a_lost_database(device: Device, *, stopped: bool) -> None:
    device.image(1)
    workload = make_workload(volumes=(Volume("data", "/data"),))
    async with device.agent() as agent:
        agent.wish(workload)
        await agent.until_ready()
        if stopped:
            agent.wish(workload, stopped=frozenset({"d1"}))
            await agent.until_shows(State.STOPPED, "StoppedByUser")
    device.path.unlink()
    async with device.agent() as agent:
        if stopped:
            agent.wish(workload, stopped=frozenset({"d1"}))
            await agent.until_shows(State.STOPPED, "StoppedByUser")
            await until(lambda: any(stored.record for stored in agent.database.workloads()))
        agent.wish()
        await until(lambda: not device.engine.instances)
        await until(lambda: device.engine.volumes == set())
        await until(lambda: agent.database.workloads() == [])


async def test_logs_of_deployments_that_a_lost_database_knew_are_not_kept_for_ever(device: Device) -> None:
    async def lines() -> AsyncIterator[LogLine]:
        yield LogLine(1.0, "stdout", "whose?")

    for name in ("d1", "d9"):
        await device.kept_logs.keep(name, lines())
    device.image(1)
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        assert device.kept_logs.read("d1", LogQuery()) is not None
        assert device.kept_logs.read("d9", LogQuery()) is None


@pytest.mark.parametrize(
    "error",
    [
        BackendError("LogUnreadable", "the disk is broken", retryable=True),
        OSError(5, "Input/output error"),
        ValueError("Invalid isoformat string"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_log_that_cannot_be_read_holds_up_nothing(device: Device, error: Exception) -> None:
    device.image(1)
    for _ in range(100):
        device.engine.fail_next("logs", error)
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        device.engine.crash(device.instance().handle)
        await agent.until_shows(State.BACKOFF, "Exited")
        await agent.until_ready()
        await until(lambda: len(device.engine.instances) == 1)
        agent.wish()
        await until(lambda: agent.status() is None)
        assert not device.engine.instances
