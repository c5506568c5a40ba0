"""The reconciler across restarts of the agent, with no network, and while the engine does not answer."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from edge_agent.runtime.backend import Observed, Phase
from edge_agent.runtime.convert import workload_to_pb
from edge_agent.runtime.database import AgentDatabase
from edge_agent.runtime.fake_backend import FakeBackend
from edge_agent.runtime.model import Desired, State, Workload
from longshore.v1.agent_pb2 import DesiredState, DesiredWorkload
from tests.integration.fake_fixtures import device
from tests.support.agent_on_fake import CRASHES, Device, no_network
from tests.support.workloads import make_workload, until

__all__ = ["device"]


def store(device: Device, generation: int, *workloads: Workload) -> None:
    """What an earlier life of the agent fetched from the controller."""
    wishes = [DesiredWorkload(workload=workload_to_pb(workload)) for workload in workloads]
    database = AgentDatabase(device.path)
    assert database.store_desired(DesiredState(generation=generation, workloads=wishes).SerializeToString())
    database.close()


async def test_the_stored_wish_is_acted_on_before_any_network(device: Device) -> None:
    device.image(1)
    store(device, 7, make_workload())
    async with device.agent() as agent:
        await agent.until_ready()


async def test_a_restart_of_the_agent_leaves_no_trace(device: Device) -> None:
    device.image(1)
    store(device, 1, make_workload())
    async with device.agent() as agent:
        before = await agent.until_ready()
        told = agent.told()
    handle = device.instance().handle
    device.engine.calls.clear()
    async with device.agent() as agent:
        after = await agent.until_ready()
        assert device.instance().handle == handle
        assert not {verb for verb, _ in device.engine.calls} & {"start", "stop", "remove", "prepare"}
        assert agent.told() == told
        assert after.since == before.since


async def test_nothing_is_claimed_to_be_ready_before_it_was_asked_again(device: Device) -> None:
    device.image(1)
    store(device, 1, make_workload())
    async with device.agent() as agent:
        await agent.until_ready()
    await device.service.refuse()
    device.engine.unavailable = "the socket is gone"
    async with device.agent() as agent:
        await until(lambda: agent.reconciler.condition != "")
        status = agent.status()
        assert status is not None
        assert agent.shows(State.RUNNING, "NotObserved")
        assert not status.ready
        device.engine.unavailable = ""
        await agent.until_shows(State.RUNNING, "NotReady")


async def test_an_instance_that_died_while_the_agent_was_away_is_started_again(device: Device) -> None:
    device.image(1)
    store(device, 1, make_workload())
    async with device.agent() as agent:
        await agent.until_ready()
    device.engine.crash(device.instance().handle, 9)
    async with device.agent() as agent:
        status = await agent.until_ready()
        assert status.exit_code == 9
        assert (1, "BACKOFF", False, "Exited") in agent.told()


async def test_what_was_cut_off_by_a_power_cut_runs_again_at_once_without_network(device: Device) -> None:
    device.image(1)
    store(device, 1, make_workload())
    async with device.agent() as agent:
        await agent.until_ready()
    instance = device.instance()
    instance.exit_code, instance.exit_reason = 0, "PowerLost"
    observed = instance.observed

    def ended_unknown() -> Observed:
        return replace(observed(), exit_code=None, phase=Phase.EXITED)

    instance.observed = ended_unknown  # type: ignore[method-assign]
    device.engine.images.clear()
    image = device.image(1)
    image.error = no_network()
    async with device.agent() as agent:
        await agent.until_ready()
        assert not [entry for entry in agent.told() if entry[1] == "BACKOFF"]


async def test_while_an_update_cannot_be_fetched_the_revision_before_comes_back_after_a_reboot(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
    device.image(2).error = no_network()
    store(device, 2, make_workload(2))
    device.engine.power_cut()
    async with device.agent() as agent:
        await agent.until_shows(State.BACKOFF, "ImagePullFailed", revision=2)
        await until(lambda: len(device.engine.running()) == 1)
        assert device.instance().workload.revision == 1


async def test_an_agent_that_lost_its_database_adopts_what_runs(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_ready()
    handle = device.instance().handle
    for file in device.path.parent.glob("agent.db*"):
        file.unlink()
    async with device.agent() as agent:
        await until(lambda: agent.reconciler.handle_of("d1") == handle)
        assert agent.reconciler.statuses() == []
        agent.wish(make_workload())
        await agent.until_ready()
        assert device.instance().handle == handle


async def test_instances_of_others_are_never_touched(device: Device) -> None:
    device.image(1)
    other = FakeBackend(device.engine, "another agent")
    await other.prepare(make_workload(deployment_id="d1"), lambda _: None)
    handle = await other.start(make_workload(deployment_id="d1"))
    device.engine.calls.clear()
    async with device.agent() as agent:
        agent.wish()
        await until(lambda: ("list", "") in device.engine.calls)
        agent.wish(make_workload())
        await agent.until_ready()
        agent.wish()
        await until(lambda: agent.status() is None)
    assert device.engine.instances[handle].runs
    assert not [call for call in device.engine.calls if call[1] == handle.value]


async def test_an_engine_that_does_not_answer_is_said_to_and_nothing_is_concluded(device: Device) -> None:
    device.image(1)
    async with device.agent(resync=0.1) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        told = agent.told()
        device.engine.unavailable = "the socket is gone"
        await until(lambda: agent.reconciler.condition == "EngineUnavailable: the socket is gone")
        status = agent.status()
        assert status is not None
        assert status.ready, "the service still answers"
        assert agent.told() == told
        device.engine.unavailable = ""
        await until(lambda: agent.reconciler.condition == "")
        assert len(device.engine.of("d1")) == 1


async def test_a_wish_that_comes_while_the_engine_is_away_waits_for_it(device: Device) -> None:
    device.image(1)
    device.engine.unavailable = "the socket is gone"
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.PENDING, "EngineUnavailable")
        device.engine.unavailable = ""
        await agent.until_ready()
        facts = agent.reconciler.facts
        assert facts is not None
        await until(lambda: agent.reconciler.condition == "")


async def test_an_engine_that_leaves_in_the_middle_of_an_update_finds_it_finished_when_it_is_back(
    device: Device,
) -> None:
    device.image(1)
    image = device.image(2)
    image.gate = asyncio.Event()
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        agent.wish(make_workload(2))
        await agent.until_shows(State.FETCHING, revision=2)
        device.engine.unavailable = "the socket is gone"
        image.gate.set()
        await until(lambda: agent.reconciler.condition != "")
        assert device.instance().workload.revision == 1
        device.engine.unavailable = ""
        await agent.until_ready(revision=2)


async def test_the_backoff_goes_on_where_the_life_before_left_it(device: Device) -> None:
    device.image(1, CRASHES)
    store(device, 1, make_workload())
    async with device.agent() as agent:
        await agent.until_shows(State.BACKOFF, "CrashLoop")
    async with device.agent() as agent:
        await until(lambda: (status := agent.status()) is not None and status.attempts == 3)


async def test_a_record_that_cannot_be_read_does_not_stop_the_rest(device: Device) -> None:
    device.image(1)
    device.image(1, deployment_id="d2")
    store(device, 1, make_workload(), make_workload(deployment_id="d2"))
    async with device.agent() as agent:
        await agent.until_ready("d1")
        await agent.until_ready("d2")
    with sqlite3.connect(device.path) as connection:
        connection.execute("UPDATE workloads SET record = 'nonsense', status = 'nonsense' WHERE deployment_id = 'd1'")
    connection.close()
    handles = {instance.handle for instance in device.engine.running()}
    async with device.agent() as agent:
        await agent.until_ready("d1")
        await agent.until_ready("d2")
        assert {instance.handle for instance in device.engine.running()} == handles


async def test_a_disk_that_takes_nothing_is_said_to_and_workloads_run_all_the_same(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        agent.database.close()
        agent.wish(make_workload())
        await agent.until_ready()
        assert agent.reconciler.condition.startswith("StateNotDurable: ")


async def test_what_the_disk_did_not_take_is_stored_when_it_takes_it_again(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        blocker = sqlite3.connect(device.path, isolation_level=None)
        agent.database._connection.execute("PRAGMA busy_timeout = 0")
        blocker.execute("BEGIN EXCLUSIVE")
        agent.wish(make_workload())
        await agent.until_ready()
        assert agent.reconciler.condition.startswith("StateNotDurable: ")
        blocker.execute("ROLLBACK")
        blocker.close()
        agent.reconciler.wake()
        await until(lambda: agent.reconciler.condition == "")
        assert [state for _, state, _, _ in agent.told()] == ["STARTING", "RUNNING"]
        assert agent.database.workloads()[0].record


@pytest.mark.parametrize("calls", range(1, 14))
async def test_an_agent_that_ends_in_the_middle_of_an_update_finishes_it_in_its_next_life(
    device: Device, calls: int
) -> None:
    device.image(1)
    device.image(2)
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
    store(device, 2, make_workload(2))
    device.engine.calls.clear()
    async with device.agent():
        await until(lambda: len(device.engine.calls) >= calls or settled(device))
    async with device.agent() as agent:
        await agent.until_ready(revision=2)
        await until(lambda: settled(device))
        assert [entry.number for entry in agent.database.unacknowledged(1000)] == list(range(1, len(agent.told()) + 1))
        assert "FAILED" not in [state for _, state, _, _ in agent.told()]


def settled(device: Device) -> bool:
    """The new revision runs, and nothing else is left."""
    return [(instance.workload.revision, instance.runs) for instance in device.engine.of("d1")] == [(2, True)]


async def test_what_runs_is_compared_with_a_wish_only_after_a_look_at_it(device: Device) -> None:
    device.image(1)
    store(device, 1, make_workload())
    async with device.agent() as agent:
        await agent.until_ready()
    device.path.unlink()
    device.engine.unavailable = "the socket is gone"
    async with device.agent() as agent:
        agent.wish()
        await until(lambda: agent.reconciler.condition != "")
        assert agent.reconciler.reported_generation == 0
        device.engine.unavailable = ""
        await until(lambda: agent.reconciler.reported_generation == 1)
        assert agent.status() is not None or not device.engine.of("d1")
        changes = agent.changes
        agent.reconciler.set_desired(Desired(2, ()))
        await until(lambda: agent.reconciler.reported_generation == 2)
        assert agent.changes > changes
