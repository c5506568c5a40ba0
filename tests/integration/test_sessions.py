"""A user's call and the device that dials back, however either of them leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from controller.errors import NotFound, Unavailable
from controller.rpc.sessions import WINDOW, Sessions
from controller.store import DeviceDeleted
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2
from tests.support.async_waiting import until

END = agent_pb2.ChannelRequest(end=agent_pb2.ChannelEnd())
REFUSAL = agent_pb2.ChannelRequest(error=agent_pb2.ChannelError(reason="NoSuchInstance", message="it is gone"))


class Meeting:
    """Sessions whose invitations are noted."""

    def __init__(self) -> None:
        self.invited: list[tuple[str, str]] = []
        self.sessions = Sessions(self._invite)

    def _invite(self, device_id: str, invitation: mqtt_pb2.ChannelInvitation) -> None:
        self.invited.append((device_id, invitation.session_id))

    def ask(self) -> AsyncIterator[agent_pb2.ChannelRequest]:
        return self.sessions.ask("dev-1", mqtt_pb2.LogQuery(deployment_id="dep-1"))

    def serve(
        self, lines: int | None, device_id: str = "dev-1", last: agent_pb2.ChannelRequest | None = END
    ) -> "asyncio.Task[None]":
        """A device that sends so many lines and `last`, or lines without end."""
        return asyncio.create_task(self.sessions.serve(device_id, _said(self.invited[-1][1], lines, last)))


async def _said(
    session_id: str, lines: int | None, last: agent_pb2.ChannelRequest | None
) -> AsyncIterator[agent_pb2.ChannelRequest]:
    yield agent_pb2.ChannelRequest(session_id=session_id)
    sent = 0
    while lines is None or sent < lines:
        sent += 1
        yield agent_pb2.ChannelRequest(log_line=types_pb2.LogLine(text=str(sent)))
    if last is not None:
        yield last


async def first(asking: AsyncIterator[agent_pb2.ChannelRequest]) -> agent_pb2.ChannelRequest:
    return await anext(asking)


async def hear(asking: AsyncIterator[agent_pb2.ChannelRequest], heard: list[str]) -> None:
    async for message in asking:
        heard.append(message.log_line.text)


async def test_all_lines_arrive_in_order_also_past_the_window() -> None:
    meeting = Meeting()
    asking = meeting.ask()
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    serving = meeting.serve(3 * WINDOW)
    texts = [(await begun).log_line.text, *[message.log_line.text async for message in asking]]
    assert texts == [str(number) for number in range(1, 3 * WINDOW + 1)]
    await asyncio.wait_for(serving, 10)


async def test_a_device_that_is_cut_off_has_not_said_all() -> None:
    """Also where the stream seems to have ended by itself, as broken ones may."""
    meeting = Meeting()
    asking = meeting.ask()
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    serving = meeting.serve(3, last=None)
    assert (await begun).log_line.text == "1"
    heard: list[str] = []
    with pytest.raises(Unavailable, match="dev-1 broke before the end"):
        await hear(asking, heard)
    assert heard == ["2", "3"]
    await asyncio.wait_for(serving, 10)


async def test_a_refusal_is_the_last_that_is_heard() -> None:
    meeting = Meeting()
    asking = meeting.ask()
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    serving = meeting.serve(0, last=REFUSAL)
    assert await begun == REFUSAL
    assert [message async for message in asking] == []
    await asyncio.wait_for(serving, 10)


@pytest.mark.parametrize("cut", [True, False])
async def test_nothing_waits_for_an_asker_that_left_with_lines_unread(cut: bool) -> None:
    meeting = Meeting()
    asking = meeting.ask()
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    serving = meeting.serve(None)
    await begun
    (session,) = meeting.sessions._open.values()
    await until(session.messages.full)
    if cut:
        # The device's connection breaks.
        serving.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
    await asking.aclose()  # type: ignore[attr-defined]
    await asyncio.wait([serving], timeout=10)
    assert serving.done()


async def test_another_device_cannot_take_a_session() -> None:
    meeting = Meeting()
    begun = asyncio.create_task(first(meeting.ask()))
    await until(lambda: meeting.invited)
    with pytest.raises(NotFound):
        await meeting.serve(1, device_id="dev-2")
    serving = meeting.serve(1)
    assert (await begun).log_line.text == "1"
    await asyncio.wait_for(serving, 10)


async def test_a_device_that_is_deleted_is_cut_off_while_it_speaks() -> None:
    meeting = Meeting()
    asking = meeting.ask()
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    serving = meeting.serve(None)
    await begun
    meeting.sessions.heard(DeviceDeleted("dev-2"))
    for _ in range(WINDOW):
        await anext(asking)
    meeting.sessions.heard(DeviceDeleted("dev-1"))
    with pytest.raises(Unavailable, match="dev-1 broke before the end"):
        await asyncio.wait_for(hear(asking, []), 10)
    await asyncio.wait_for(serving, 10)
