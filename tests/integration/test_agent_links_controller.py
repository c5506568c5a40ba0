"""The agent's calls to a real gRPC server: credentials, errors, and sessions in which a person reads a log."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.runtime.controller_link import ControllerLink, ControllerRefused, ControllerUnavailable
from edge_agent.runtime.farewell import tell_controller
from longshore.topics import Topic
from longshore.v1 import mqtt_pb2
from tests.support.agent_controller import Session
from tests.support.agent_links import Surroundings, surroundings, workload
from tests.support.async_waiting import until
from tests.support.fake_agent import LINES, FakeAgent


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with surroundings(tmp_path) as made:
        yield made


@pytest.fixture
async def link(around: Surroundings) -> AsyncIterator[ControllerLink]:
    made = ControllerLink(around.identity)
    yield made
    await made.close()


async def test_desired_state_is_fetched_once_and_then_only_when_it_is_newer(
    around: Surroundings, link: ControllerLink
) -> None:
    assert await link.get_desired(0) is None
    around.controller.wish(around.device_id, [workload()])
    desired = await link.get_desired(0)
    assert desired is not None
    assert [entry.workload.name for entry in desired.workloads] == ["digits"]
    assert await link.get_desired(desired.generation) is None


async def test_a_connection_that_is_not_used_is_closed_and_made_again(around: Surroundings) -> None:
    link = ControllerLink(around.identity, idle_seconds=0.05)
    around.controller.wish(around.device_id, [workload()])
    connected = [link.connected]
    for held in (0, 0, 1):
        await link.get_desired(held)
        connected.append(link.connected)
        await until(lambda: not link.connected)
    assert connected == [False, True, True, True]
    await link.close()


@pytest.mark.parametrize("told_life", [-3600.0, 3600.0, 10 * 365 * 86400.0])
async def test_each_registry_credential_is_a_new_one_whatever_the_clocks_say(
    around: Surroundings, link: ControllerLink, told_life: float
) -> None:
    around.controller.credential_life = told_life
    first = await link.registry_credential()
    second = await link.registry_credential()
    assert (first.username, first.password, second.password) == (around.device_id, "p1", "p2")


async def test_a_device_that_leaves_tells_the_controller_where_it_can(around: Surroundings) -> None:
    assert await asyncio.to_thread(tell_controller, around.identity) == ""
    assert around.controller.left == [around.device_id]
    await around.controller.stop()
    untold = await asyncio.to_thread(tell_controller, around.identity)
    assert f"controller at {around.identity.agent_address} does not answer" in untold


async def test_a_controller_that_is_away_is_unavailable_and_then_answers_again(
    around: Surroundings, link: ControllerLink
) -> None:
    await link.get_desired(0)
    await around.controller.stop()
    with pytest.raises(ControllerUnavailable, match=f"controller at {around.identity.agent_address} does not answer"):
        await link.get_desired(0)
    await around.controller.start()
    await until_answered(link)


async def until_answered(link: ControllerLink) -> None:
    """The link connects again by itself, after a pause of its own."""
    async with asyncio.timeout(20):
        while True:
            try:
                await link.get_desired(0)
                return
            except ControllerUnavailable:
                await asyncio.sleep(0.05)


async def test_a_session_that_nobody_waits_for_is_refused(link: ControllerLink) -> None:
    async def dial() -> None:
        async with link.channel("nowhere") as channel:
            async for _ in channel:
                pass

    with pytest.raises(ControllerRefused, match="no session nowhere"):
        await dial()


async def test_the_log_of_an_instance_arrives_line_by_line_and_the_session_ends(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir):
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        session = _invite(around, "s1", deployment_id="deployment-1")
        await until(session.ended.is_set)
        assert [line.text for line in session.lines] == list(LINES)
        assert {line.stream for line in session.lines} == {"stdout"}
        assert all(line.time.seconds > 0 for line in session.lines)
        assert session.whole


async def test_a_log_can_be_asked_for_its_last_lines_only(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir):
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        session = _invite(around, "s1", deployment_id="deployment-1", tail=1)
        await until(session.ended.is_set)
        assert [line.text for line in session.lines] == [LINES[-1]]


async def test_the_log_of_an_instance_that_is_not_there_is_an_error_with_a_reason(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir):
        await until(around.online)
        session = _invite(around, "s1", deployment_id="deployment-9")
        await until(session.ended.is_set)
        (message,) = session.received
        assert message.error.reason == "NoSuchInstance"
        assert "deployment-9" in message.error.message


async def test_an_invitation_to_a_session_that_is_over_harms_nothing(around: Surroundings) -> None:
    async with FakeAgent(around.state_dir) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        _ring(around, "long-gone", mqtt_pb2.LogQuery(deployment_id="deployment-1"))
        await until(lambda: "channel_ended session=long-gone" in agent.log())
        session = _invite(around, "s2", deployment_id="deployment-1")
        await until(session.ended.is_set)
        assert len(session.lines) == len(LINES)


async def test_a_stopped_agent_ends_the_sessions_that_it_serves_and_does_not_say_that_this_was_all(
    around: Surroundings,
) -> None:
    async with FakeAgent(around.state_dir) as agent:
        generation = around.wish(workload())
        await until(lambda: around.runs_ready(generation))
        session = _invite(around, "s1", deployment_id="deployment-1", follow=True)
        await until(lambda: len(session.received) == len(LINES))
        assert await agent.signal(signal.SIGTERM) == 0
        await until(session.ended.is_set)
        assert not session.whole


def _invite(
    around: Surroundings, session_id: str, *, deployment_id: str, tail: int = 0, follow: bool = False
) -> Session:
    session = around.controller.sessions[session_id] = Session()
    _ring(around, session_id, mqtt_pb2.LogQuery(deployment_id=deployment_id, tail=tail, follow=follow))
    return session


def _ring(around: Surroundings, session_id: str, query: mqtt_pb2.LogQuery) -> None:
    invitation = mqtt_pb2.ChannelInvitation(session_id=session_id, logs=query)
    around.observer.publish(around.device_id, Topic.CHANNEL, invitation)
