"""An agent process between a real broker and a real gRPC server: presence, bells, polling, snapshots, journal."""

import itertools
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from longshore.topics import Topic
from longshore.v1 import mqtt_pb2, types_pb2
from tests.support.agent_links import Surroundings, surroundings, workload
from tests.support.async_waiting import until
from tests.support.broker_observer import acknowledge_all
from tests.support.fake_agent import FakeAgent


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with surroundings(tmp_path) as made:
        yield made


async def test_a_killed_agent_is_offline_by_its_will_and_comes_back_with_a_greater_session(
    around: Surroundings,
) -> None:
    async with FakeAgent(around.state_dir) as agent:
        await until(around.online)
        first = around.observer.presences()[-1]
        await agent.signal(signal.SIGKILL)
        await until(lambda: not around.online())
        will = around.observer.presences()[-1]
        assert will.session == first.session
        await agent.start()
        await until(around.online)
        assert around.observer.presences()[-1].session > first.session


async def test_a_stopped_agent_says_farewell_and_ends_with_zero(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        await until(around.online)
        assert await agent.signal(signal.SIGTERM) == 0
        await until(lambda: not around.online())
        assert "agent_stopped" in agent.log()
        assert "farewell_unanswered" not in agent.log()
        # Neither the farewell nor a will that came after it belongs to another session.
        assert len({presence.session for presence in around.observer.presences()}) == 1


async def test_an_agent_without_its_broker_stops_without_delay(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        await until(around.online)
        await around.broker.kill()
        await until(lambda: "broker_lost" in agent.log())
        assert await agent.signal(signal.SIGTERM, seconds=3) == 0


async def test_the_bell_makes_the_agent_fetch_and_run_what_is_wished(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir):
        await until(around.online)
        await until(lambda: around.controller.fetches)
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        latest = around.latest()
        (instance,) = latest.instances
        assert instance.state == types_pb2.INSTANCE_STATE_RUNNING
        assert instance.deployment_id == "deployment-1"
        assert latest.facts.backend == "fake 1"
        assert latest.facts.cpus >= 1
        assert latest.condition == ""


async def test_a_bell_for_what_is_held_already_makes_no_call(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir):
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        calls = len(around.controller.fetches)
        around.observer.publish(around.device_id, Topic.DESIRED, mqtt_pb2.DesiredNotice(generation=generation))
        # Messages of one topic come in order: once the next generation is fetched, the repeated bell was heard.
        following = around.wish(workload(), workload("deployment-2"))
        await until(lambda: around.runs_ready(following))
        assert around.controller.fetches[calls:] == [(around.device_id, generation)]


async def test_what_was_wished_while_the_agent_was_away_is_run_when_it_is_back(around: Surroundings) -> None:
    generation = around.wish(workload())
    async with FakeAgent(around.state_dir):
        await until(lambda: around.runs_ready(generation))


async def test_without_network_the_agent_runs_what_it_has_stored(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        await agent.signal(signal.SIGKILL)
        await around.broker.kill()
        await around.controller.stop()
        agent.log_file.write_text("")
        await agent.start()
        await until(lambda: "state=RUNNING ready=true" in agent.log())


async def test_with_the_broker_gone_the_agent_polls_and_with_it_back_it_tells_what_happened(
    around: Surroundings,
) -> None:
    async with FakeAgent(around.state_dir, "--poll-interval", "1") as agent:
        await until(around.online)
        session = around.observer.presences()[-1].session
        await around.broker.kill()
        generation = around.controller.wish(around.device_id, [workload()])
        await until(lambda: f"desired_state_stored generation={generation}" in agent.log(), seconds=30)
        await around.broker.start()
        await until(lambda: around.runs_ready(generation), seconds=60)
        assert around.online()
        assert around.observer.presences()[-1].session > session


async def test_a_generation_that_is_known_of_is_asked_for_until_the_controller_is_back(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        await until(around.online)
        await until(lambda: around.controller.fetches)
        await around.controller.stop()
        generation = around.wish(workload())
        await until(lambda: agent.log().count("controller_unavailable") >= 2)
        await around.controller.start()
        await until(lambda: around.runs_ready(generation), seconds=60)


async def test_snapshot_sequences_grow_over_restarts_also_when_the_database_is_lost(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        await agent.signal(signal.SIGKILL)
        for path in around.state_dir.glob("agent.db*"):
            path.unlink()
        await until(lambda: not around.online())
        seen = len(around.observer.snapshots())
        await agent.start()
        await until(lambda: len(around.observer.snapshots()) > seen and around.runs_ready(generation))
        sequences = [snapshot.sequence for snapshot in around.observer.snapshots()]
        assert sequences == sorted(set(sequences))


async def test_the_journal_is_sent_until_it_is_acknowledged_and_not_after(around: Surroundings) -> None:
    around.observer.acknowledger = acknowledge_all
    async with FakeAgent(around.state_dir) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        await until(lambda: _states(around)[-1:] == [types_pb2.INSTANCE_STATE_RUNNING])
        numbers = [entry.number for entry in around.observer.entries()]
        assert numbers == list(range(1, len(numbers) + 1))
        acknowledged = around.observer.entries()[-1].number
        await until(lambda: not _unacknowledged(around))
        await agent.signal(signal.SIGTERM)
        around.wish(workload("deployment-2"))
        seen = len(around.observer.entries())
        await agent.start()
        await until(lambda: len(around.observer.entries()) > seen)
        assert around.observer.entries()[seen].number == acknowledged + 1


async def test_no_journal_entry_is_lost_over_a_broken_broker_and_a_killed_agent(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir, "--poll-interval", "1") as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        await until(around.observer.entries)
        first = around.observer.entries()[0]
        # What happens while the broker is away is written down,
        await around.broker.kill()
        generation = around.controller.wish(around.device_id, [workload(), workload("deployment-2")])
        await until(lambda: f"desired_state_stored generation={generation}" in agent.log(), seconds=30)
        await until(lambda: agent.log().count("state=RUNNING") >= 2)
        # survives the agent,
        await agent.signal(signal.SIGKILL)
        await around.broker.start()
        around.observer.acknowledger = acknowledge_all
        await agent.start()
        # and is all there in the end, without a gap.
        await until(lambda: around.runs_ready(generation), seconds=60)
        await until(lambda: _told(around, "deployment-2"), seconds=60)
        entries = {entry.number: entry for entry in around.observer.entries()}
        assert sorted(entries) == list(range(1, len(entries) + 1))
        assert {entry.journal_id for entry in entries.values()} == {first.journal_id}
        _assert_batches_are_in_order(around)


async def test_an_acknowledgement_of_another_journal_acknowledges_nothing(around: Surroundings) -> None:
    around.observer.acknowledger = lambda batch: mqtt_pb2.JournalAck(
        journal_id="of-another-life", number=batch.entries[-1].number
    )
    async with FakeAgent(around.state_dir) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        await until(around.observer.entries)
        await agent.signal(signal.SIGTERM)
        around.observer.acknowledger = acknowledge_all
        seen = len(around.observer.entries())
        await agent.start()
        await until(lambda: len(around.observer.entries()) > seen)
        assert around.observer.entries()[seen].number == 1


async def test_a_second_agent_on_the_same_state_folder_is_refused(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        await until(around.online)
        second = FakeAgent(around.state_dir)
        await second.start()
        assert await second.ended() == 1
        assert f"another agent uses {around.state_dir} (process {agent.pid})" in second.log()
        assert around.online()


def _unacknowledged(around: Surroundings) -> int:
    """How many entries the running agent still keeps."""
    with closing(sqlite3.connect(f"file:{around.state_dir / 'agent.db'}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM journal").fetchone()[0])


def _states(around: Surroundings) -> list[int]:
    return [entry.instance.state for entry in around.observer.entries()]


def _told(around: Surroundings, deployment_id: str) -> bool:
    return any(entry.instance.deployment_id == deployment_id for entry in around.observer.entries())


def _assert_batches_are_in_order(around: Surroundings) -> None:
    for message in around.observer.seen():
        if isinstance(message, mqtt_pb2.JournalBatch):
            numbers = [entry.number for entry in message.entries]
            assert all(after == before + 1 for before, after in itertools.pairwise(numbers))
