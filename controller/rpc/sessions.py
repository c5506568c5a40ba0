"""Sessions between a user's call and a device that dials back: MQTT invites, AgentService.Channel answers."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from controller.errors import NotFound, Unavailable
from controller.rpc.session_errors import refusal
from controller.store import DeviceDeleted, Signal
from longshore.errors import Reason
from longshore.v1 import agent_pb2, mqtt_pb2

DIAL_DEADLINE = 15.0
# Messages that wait for a slow reader; then the device has to wait.
WINDOW = 32
# Messages of input that a device has not told to be taken; then the user has to wait. See ChannelResponse.
INPUT_WINDOW = 16
# What waits to be sent to the device besides: new sizes of a terminal.
OUTGOING = 2 * INPUT_WINDOW
Invite = Callable[[str, mqtt_pb2.ChannelInvitation], None]


class Session:
    """One user's call and one device that has dialled."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.dialled = asyncio.Event()
        self.left = asyncio.Event()
        # What the device sends, on its way to the user.
        self.forwarding: asyncio.Task[None] | None = None
        # Without a bound, so that its end can always be told; what the device says waits for `_room`.
        self._heard: asyncio.Queue[agent_pb2.ChannelRequest | Exception] = asyncio.Queue()
        self._room = asyncio.Semaphore(WINDOW)
        self._said: asyncio.Queue[agent_pb2.ChannelResponse] = asyncio.Queue(OUTGOING)
        self._not_taken = 0
        self._taken = asyncio.Event()

    # For the user's call.

    async def say(self, message: agent_pb2.ChannelResponse) -> None:
        """To the device; waits while it has taken too little of what was said before."""
        if message.HasField("data"):
            while self._not_taken >= INPUT_WINDOW:
                self._taken.clear()
                await self._taken.wait()
            self._not_taken += 1
        await self._said.put(message)

    async def messages(self) -> AsyncIterator[agent_pb2.ChannelRequest]:
        """What the device says, until it has said all. Raises what its refusal means; Unavailable where it is cut off
        before: the stream's own end proves nothing, since to gRPC one that breaks may look like one that was closed."""
        while True:
            said = await self._heard.get()
            if isinstance(said, Exception):
                raise said
            self._room.release()
            if said.HasField("end"):
                return
            if said.HasField("error"):
                raise refusal(said.error)
            yield said
            if said.HasField("exit"):
                return

    async def exchange(self, said: AsyncIterator[agent_pb2.ChannelResponse]) -> AsyncIterator[agent_pb2.ChannelRequest]:
        """As `messages`, while the device is told all of `said`. An error of `said` ends both."""
        saying = asyncio.create_task(self._say_all(said))
        try:
            async for message in self.messages():
                yield message
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)

    async def _say_all(self, said: AsyncIterator[agent_pb2.ChannelResponse]) -> None:
        try:
            async for message in said:
                await self.say(message)
        except Exception as error:  # noqa: BLE001 - raised by `messages`
            self._heard.put_nowait(error)

    # For the device's call.

    async def forward(self, messages: AsyncIterator[agent_pb2.ChannelRequest]) -> None:
        """What the device sends goes to the user, and at the end that nothing more comes."""
        try:
            async for said in messages:
                if said.HasField("taken"):
                    self._not_taken = max(0, self._not_taken - max(0, said.taken.messages))
                    self._taken.set()
                else:
                    await self._room.acquire()
                    self._heard.put_nowait(said)
        finally:
            message = f"the connection to device {self.device_id} broke before the end"
            self._heard.put_nowait(Unavailable(Reason.DEVICE_UNREACHABLE, message))

    async def next_said(self, forwarding: asyncio.Task[None]) -> agent_pb2.ChannelResponse | None:
        """What is to be sent to the device next; None once either side has left."""
        message, left = asyncio.create_task(self._said.get()), asyncio.create_task(self.left.wait())
        try:
            await asyncio.wait((message, left, forwarding), return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() and not left.done() else None
        finally:
            message.cancel()
            left.cancel()


class Sessions:
    """All sessions of this controller process."""

    def __init__(self, invite: Invite) -> None:
        self._invite = invite
        self._open: dict[str, Session] = {}

    @asynccontextmanager
    async def open(
        self,
        device_id: str,
        invitation: mqtt_pb2.ChannelInvitation,
        opening: agent_pb2.ChannelResponse | None = None,
    ) -> AsyncIterator[Session]:
        """A session with the device, from when it has dialled until the block ends. `opening` is told first.

        Raises Unavailable where the device does not dial within the deadline.
        """
        session_id, session = secrets.token_urlsafe(16), Session(device_id)
        self._open[session_id] = session
        try:
            if opening is not None:
                await session.say(opening)
            asked = mqtt_pb2.ChannelInvitation(session_id=session_id)
            asked.MergeFrom(invitation)
            self._invite(device_id, asked)
            await _dialled(session)
            yield session
        finally:
            del self._open[session_id]
            session.left.set()

    async def serve(
        self, device_id: str, messages: AsyncIterator[agent_pb2.ChannelRequest]
    ) -> AsyncGenerator[agent_pb2.ChannelResponse, None]:
        """One channel of a device: what it sends goes to the user, and back. Ends with either side. Raises NotFound."""
        first = await anext(aiter(messages), None)
        session = self._open.get(first.session_id) if first is not None else None
        if session is None or session.device_id != device_id or session.dialled.is_set():
            raise NotFound(Reason.NO_SUCH_SESSION, "no such session, or its asker has left")
        session.dialled.set()
        session.forwarding = forwarding = asyncio.create_task(session.forward(messages))
        try:
            while (message := await session.next_said(forwarding)) is not None:
                yield message
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)

    def heard(self, signal: Signal) -> None:
        """Cuts off what is a device no more, as if its connection had broken."""
        if isinstance(signal, DeviceDeleted):
            for session in self._open.values():
                if session.device_id == signal.device_id and session.forwarding is not None:
                    session.forwarding.cancel()


async def _dialled(session: Session) -> None:
    try:
        async with asyncio.timeout(DIAL_DEADLINE):
            await session.dialled.wait()
    except TimeoutError:
        message = f"device {session.device_id} did not answer within {DIAL_DEADLINE:.0f} s"
        raise Unavailable(Reason.DEVICE_UNREACHABLE, message) from None
