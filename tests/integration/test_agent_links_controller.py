"""The agent's calls to a real gRPC server: credentials, errors, and sessions in which a person reads a log."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.runtime.backend import Handle, LogLine, LogQuery
from edge_agent.runtime.channels import MAX_SESSIONS, Channels
from edge_agent.runtime.controller_link import ControllerLink, ControllerRefused, ControllerUnavailable
from edge_agent.runtime.fake_backend import FakeBackend, FakeInstance
from edge_agent.runtime.farewell import tell_controller
from edge_agent.runtime.model import Artifact, Check, CommandProbe, Workload
from longshore.topics import Topic
from longshore.v1 import mqtt_pb2
from tests.support.agent_controller import Session
from tests.support.agent_links import Surroundings, surroundings, workload
from tests.support.async_waiting import until
from tests.support.fake_agent import DIGEST, LINES, FakeAgent


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


async def test_following_goes_on_until_the_controller_closes(around: Surroundings, link: ControllerLink) -> None:
    async with _local(link) as (channels, backend, instance):
        session = around.controller.sessions["s1"] = Session()
        channels.invited(_invitation("s1", follow=True))
        backend.engine.write(instance.handle, "first")
        await until(lambda: len(session.received) == 1)
        backend.engine.write(instance.handle, "second")
        await until(lambda: [message.log_line.text for message in session.received] == ["first", "second"])
        session.close.set()
        await until(lambda: channels.count == 0)
        await until(lambda: backend.open_logs == 0)


async def test_an_invitation_that_comes_twice_opens_one_session(around: Surroundings, link: ControllerLink) -> None:
    async with _local(link) as (channels, backend, instance):
        session = around.controller.sessions["s1"] = Session()
        backend.engine.write(instance.handle, "only")
        channels.invited(_invitation("s1", follow=True))
        channels.invited(_invitation("s1", follow=True))
        await until(lambda: len(session.received) == 1)
        assert channels.count == 1


async def test_one_session_more_than_allowed_is_told_so_and_the_others_go_on(
    around: Surroundings, link: ControllerLink
) -> None:
    async with _local(link) as (channels, backend, instance):
        names = [f"s{number}" for number in range(MAX_SESSIONS + 1)]
        sessions = {name: Session() for name in names}
        around.controller.sessions.update(sessions)
        for name in names:
            channels.invited(_invitation(name, follow=True))
        await until(sessions[names[-1]].ended.is_set)
        (refused,) = sessions[names[-1]].received
        assert refused.error.reason == "TooManySessions"
        backend.engine.write(instance.handle, "for all")
        await until(lambda: all(len(sessions[name].received) == 1 for name in names))
        assert channels.count == MAX_SESSIONS


async def test_a_controller_that_breaks_off_ends_the_session_and_its_source(
    around: Surroundings, link: ControllerLink
) -> None:
    async with _local(link) as (channels, backend, instance):
        session = around.controller.sessions["s1"] = Session()
        backend.engine.write(instance.handle, "only")
        channels.invited(_invitation("s1", follow=True))
        await until(lambda: len(session.received) == 1)
        await around.controller.stop()
        await until(lambda: channels.count == 0)
        await until(lambda: backend.open_logs == 0)


async def test_what_the_controller_asks_for_and_this_agent_does_not_know_is_answered(
    around: Surroundings, link: ControllerLink
) -> None:
    async with _local(link) as (channels, _, _):
        session = around.controller.sessions["s1"] = Session()
        channels.invited(mqtt_pb2.ChannelInvitation(session_id="s1"))
        await until(session.ended.is_set)
        (message,) = session.received
        assert message.error.reason == "Unsupported"


class CountingBackend(FakeBackend):
    """Knows how many of its logs are being read."""

    open_logs = 0

    async def logs(self, handle: Handle, query: LogQuery) -> AsyncIterator[LogLine]:
        self.open_logs += 1
        try:
            async for line in super().logs(handle, query):
                yield line
        finally:
            self.open_logs -= 1


@asynccontextmanager
async def _local(link: ControllerLink) -> AsyncIterator[tuple[Channels, CountingBackend, FakeInstance]]:
    """Channels over a backend in this process, with one running instance."""
    backend = CountingBackend()
    backend.engine.add_image(DIGEST, present=True)
    check = Check(CommandProbe(("true",)))
    artifact = Artifact("registry.example:5000/alice/digits", DIGEST, "linux/amd64")
    handle = await backend.start(Workload("deployment-1", 1, "digits", "alice", "cranes", artifact, check))
    channels = Channels(link, backend, lambda deployment_id: handle if deployment_id == "deployment-1" else None)
    try:
        yield channels, backend, backend.engine.instances[handle]
    finally:
        await channels.close()
        assert backend.open_logs == 0
        await backend.close()


def _invitation(session_id: str, *, follow: bool) -> mqtt_pb2.ChannelInvitation:
    query = mqtt_pb2.LogQuery(deployment_id="deployment-1", follow=follow)
    return mqtt_pb2.ChannelInvitation(session_id=session_id, logs=query)


def _invite(
    around: Surroundings, session_id: str, *, deployment_id: str, tail: int = 0, follow: bool = False
) -> Session:
    session = around.controller.sessions[session_id] = Session()
    _ring(around, session_id, mqtt_pb2.LogQuery(deployment_id=deployment_id, tail=tail, follow=follow))
    return session


def _ring(around: Surroundings, session_id: str, query: mqtt_pb2.LogQuery) -> None:
    invitation = mqtt_pb2.ChannelInvitation(session_id=session_id, logs=query)
    around.observer.publish(around.device_id, Topic.CHANNEL, invitation)
