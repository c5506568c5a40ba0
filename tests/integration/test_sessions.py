"""A user's call and the device that dials back, however either of them leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from controller.errors import (
    DomainError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from controller.rpc.sessions import INPUT_WINDOW, WINDOW, Session, Sessions
from controller.store import DeviceDeleted
from longshore.errors import Reason
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2
from tests.support.async_waiting import until

END = agent_pb2.ChannelRequest(end=agent_pb2.ChannelEnd())
EXIT = agent_pb2.ChannelRequest(exit=agent_pb2.ChannelExit(exit_code=3))
OPENING = agent_pb2.ChannelResponse(exec=agent_pb2.ExecQuery(deployment_id="dep-1", command=["sh"]))
RESIZE = agent_pb2.ChannelResponse(resize=types_pb2.TerminalSize(rows=3, columns=4))


def refusal_of(reason: str) -> agent_pb2.ChannelRequest:
    return agent_pb2.ChannelRequest(error=agent_pb2.ChannelError(reason=reason, message="it is gone"))


def data(number: int) -> agent_pb2.ChannelResponse:
    return agent_pb2.ChannelResponse(data=agent_pb2.ChannelData(data=str(number).encode()))


class Meeting:
    """Sessions whose invitations are noted."""

    def __init__(self) -> None:
        self.invited: list[tuple[str, str]] = []
        self.sessions = Sessions(self._invite)
        # What devices were told.
        self.told: list[agent_pb2.ChannelResponse] = []

    def _invite(self, device_id: str, invitation: mqtt_pb2.ChannelInvitation) -> None:
        self.invited.append((device_id, invitation.session_id))

    async def ask(self) -> AsyncIterator[agent_pb2.ChannelRequest]:
        """As a call that only listens."""
        query = mqtt_pb2.LogQuery(deployment_id="dep-1")
        async with self.sessions.open("dev-1", mqtt_pb2.ChannelInvitation(logs=query)) as session:
            async for message in session.messages():
                yield message

    async def exchange(self, said: AsyncIterator[agent_pb2.ChannelResponse]) -> AsyncIterator[agent_pb2.ChannelRequest]:
        """As a call that speaks, too."""
        async with self.sessions.open("dev-1", mqtt_pb2.ChannelInvitation(), OPENING) as session:
            async for message in session.exchange(said):
                yield message

    def serve(
        self, lines: int | None, device_id: str = "dev-1", last: agent_pb2.ChannelRequest | None = END
    ) -> "asyncio.Task[None]":
        """A device that sends so many lines and `last`, or lines without end."""
        return self.dial(_said(self.invited[-1][1], lines, last), device_id)

    def dial(self, messages: AsyncIterator[agent_pb2.ChannelRequest], device_id: str = "dev-1") -> "asyncio.Task[None]":
        async def serve() -> None:
            async with aclosing(self.sessions.serve(device_id, messages)) as told:
                async for message in told:
                    self.told.append(message)

        return asyncio.create_task(serve())

    @property
    def session(self) -> Session:
        (session,) = self.sessions._open.values()
        return session


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


class Device:
    """A device that says what the test gives it."""

    def __init__(self, meeting: Meeting) -> None:
        self._says: asyncio.Queue[agent_pb2.ChannelRequest | None] = asyncio.Queue()
        self.say(agent_pb2.ChannelRequest(session_id=meeting.invited[-1][1]))
        self.serving = meeting.dial(self._messages())

    def say(self, message: agent_pb2.ChannelRequest | None) -> None:
        self._says.put_nowait(message)

    def take(self, messages: int) -> None:
        self.say(agent_pb2.ChannelRequest(taken=agent_pb2.ChannelTaken(messages=messages)))

    async def _messages(self) -> AsyncIterator[agent_pb2.ChannelRequest]:
        while (message := await self._says.get()) is not None:
            yield message


async def first(asking: AsyncIterator[agent_pb2.ChannelRequest]) -> agent_pb2.ChannelRequest:
    return await anext(asking)


async def heard_once(meeting: Meeting) -> "tuple[AsyncIterator[agent_pb2.ChannelRequest], asyncio.Task[None]]":
    """A call that has heard the first of lines without end, and the device that goes on to send them."""
    asking = meeting.ask()
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    serving = meeting.serve(None)
    await begun
    return asking, serving


async def cut_off(serving: "asyncio.Task[None]") -> None:
    """The device's connection breaks."""
    serving.cancel()
    for _ in range(10):
        await asyncio.sleep(0)


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


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        ("NoSuchInstance", NotFound, Reason.NO_SUCH_INSTANCE),
        ("NoPreviousInstance", NotFound, Reason.NO_SUCH_INSTANCE),
        ("NotRunning", FailedPrecondition, Reason.INSTANCE_NOT_RUNNING),
        ("Unsupported", FailedPrecondition, Reason.NOT_SUPPORTED),
        ("NoSuchPort", InvalidRequest, Reason.NO_SUCH_PORT),
        ("TooManySessions", ResourceExhausted, Reason.TOO_MANY_SESSIONS),
        ("ConnectionFailed", Unavailable, Reason.CONNECTION_FAILED),
        ("SomethingNew", Unavailable, Reason.DEVICE_FAILED),
    ],
)
async def test_a_refusal_is_raised_for_what_it_means(said: str, kind: type[DomainError], reason: Reason) -> None:
    meeting = Meeting()
    begun = asyncio.create_task(first(meeting.ask()))
    await until(lambda: meeting.invited)
    serving = meeting.serve(0, last=refusal_of(said))
    with pytest.raises(kind, match="it is gone") as caught:
        await begun
    assert caught.value.reason is reason
    await asyncio.wait_for(serving, 10)


@pytest.mark.parametrize("cut", [True, False])
async def test_nothing_waits_for_an_asker_that_left_with_lines_unread(cut: bool) -> None:
    meeting = Meeting()
    asking, serving = await heard_once(meeting)
    await until(meeting.session._room.locked)
    if cut:
        await cut_off(serving)
    await asking.aclose()  # type: ignore[attr-defined]
    await asyncio.wait([serving], timeout=10)
    assert serving.done()


async def test_an_asker_that_reads_slowly_hears_the_end_of_a_connection_that_was_cut_off_twice() -> None:
    meeting = Meeting()
    asking, serving = await heard_once(meeting)
    await until(meeting.session._room.locked)
    # As where the device's connection breaks while the controller stops.
    for _ in range(2):
        await cut_off(serving)
    heard: list[str] = []
    with pytest.raises(Unavailable, match="dev-1 broke before the end"):
        await asyncio.wait_for(hear(asking, heard), 10)
    assert len(heard) == WINDOW
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
    asking, serving = await heard_once(meeting)
    meeting.sessions.heard(DeviceDeleted("dev-2"))
    for _ in range(WINDOW):
        await anext(asking)
    meeting.sessions.heard(DeviceDeleted("dev-1"))
    with pytest.raises(Unavailable, match="dev-1 broke before the end"):
        await asyncio.wait_for(hear(asking, []), 10)
    await asyncio.wait_for(serving, 10)


async def test_what_is_asked_for_is_told_first_and_the_exit_is_the_last() -> None:
    meeting = Meeting()

    async def said() -> AsyncIterator[agent_pb2.ChannelResponse]:
        yield data(1)
        yield RESIZE

    asking = meeting.exchange(said())
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    device = Device(meeting)
    await until(lambda: len(meeting.told) == 3)
    assert meeting.told == [OPENING, data(1), RESIZE]
    device.say(EXIT)
    assert await begun == EXIT
    assert [message async for message in asking] == []
    await asyncio.wait_for(device.serving, 10)


async def test_no_more_is_told_than_the_device_takes() -> None:
    meeting = Meeting()
    asked_for = 0

    async def said() -> AsyncIterator[agent_pb2.ChannelResponse]:
        nonlocal asked_for
        while True:
            asked_for += 1
            yield data(asked_for)

    asking = meeting.exchange(said())
    begun = asyncio.create_task(first(asking))
    await until(lambda: meeting.invited)
    device = Device(meeting)
    await until(lambda: asked_for == INPUT_WINDOW + 1)
    await until(lambda: len(meeting.told) == 1 + INPUT_WINDOW)
    device.take(3)
    await until(lambda: asked_for == INPUT_WINDOW + 4)
    # One that takes more than it got gets no more for that.
    device.take(2**30)
    await until(lambda: asked_for == 2 * INPUT_WINDOW + 4)
    assert len(meeting.told) <= 1 + 2 * INPUT_WINDOW + 3
    device.say(EXIT)
    assert await begun == EXIT
    await asking.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(device.serving, 10)


async def test_nonsense_of_the_user_ends_both() -> None:
    meeting = Meeting()

    async def said() -> AsyncIterator[agent_pb2.ChannelResponse]:
        yield data(1)
        raise InvalidRequest("start", "only in the first message")

    begun = asyncio.create_task(first(meeting.exchange(said())))
    await until(lambda: meeting.invited)
    device = Device(meeting)
    with pytest.raises(InvalidRequest):
        await begun
    await asyncio.wait_for(device.serving, 10)


async def test_device_that_is_lost_ends_a_user_who_waits_to_speak() -> None:
    meeting = Meeting()

    async def said() -> AsyncIterator[agent_pb2.ChannelResponse]:
        while True:
            yield data(1)

    begun = asyncio.create_task(first(meeting.exchange(said())))
    await until(lambda: meeting.invited)
    device = Device(meeting)
    await until(lambda: len(meeting.told) == 1 + INPUT_WINDOW)
    device.say(None)
    with pytest.raises(Unavailable, match="broke before the end"):
        await begun
    await asyncio.wait_for(device.serving, 10)
