"""Sessions between a user's call and a device that dials back: MQTT invites, AgentService.Channel answers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from controller.errors import NotFound, Unavailable
from controller.store import DeviceDeleted, Signal
from longshore.errors import Reason
from longshore.v1 import agent_pb2, mqtt_pb2

DIAL_DEADLINE = 15.0
# Messages that wait for a slow reader; then the device has to wait.
WINDOW = 256
Invite = Callable[[str, mqtt_pb2.ChannelInvitation], None]


@dataclass
class Session:
    """One asker and one device. None in the queue is the device's end."""

    device_id: str
    messages: asyncio.Queue[agent_pb2.ChannelRequest | None] = field(default_factory=lambda: asyncio.Queue(WINDOW))
    dialled: asyncio.Event = field(default_factory=asyncio.Event)
    # What the device sends, on its way to the asker.
    forward: asyncio.Task[None] | None = None
    left: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """All sessions of this controller process."""

    def __init__(self, invite: Invite) -> None:
        self._invite = invite
        self._open: dict[str, Session] = {}

    async def ask(self, device_id: str, query: mqtt_pb2.LogQuery) -> AsyncIterator[agent_pb2.ChannelRequest]:
        """Invites the device and yields what it sends, until the device has said all or the asker leaves.

        Raises Unavailable where the device does not dial within the deadline, or is cut off before it has said all.
        """
        with self._session(device_id) as (session_id, session):
            self._invite(device_id, mqtt_pb2.ChannelInvitation(session_id=session_id, logs=query))
            try:
                async with asyncio.timeout(DIAL_DEADLINE):
                    await session.dialled.wait()
            except TimeoutError:
                message = f"device {device_id} did not answer within {DIAL_DEADLINE:.0f} s"
                raise Unavailable(Reason.DEVICE_UNREACHABLE, message) from None
            while (said := await session.messages.get()) is not None:
                if said.HasField("end"):
                    return
                yield said
                if said.HasField("error"):
                    return
            # The stream's own end proves nothing: to gRPC, one that breaks may look like one that was closed.
            raise Unavailable(Reason.DEVICE_UNREACHABLE, f"the connection to device {device_id} broke before the end")

    async def serve(self, device_id: str, messages: AsyncIterator[agent_pb2.ChannelRequest]) -> None:
        """What a device sends on a channel goes to the asker; ends with either side. Raises NotFound."""
        first = await anext(aiter(messages), None)
        session = self._open.get(first.session_id) if first is not None else None
        if session is None or session.device_id != device_id or session.dialled.is_set():
            raise NotFound(Reason.NO_SUCH_SESSION, "no such session, or its asker has left")
        session.dialled.set()
        session.forward = forward = asyncio.create_task(_forward(messages, session))
        left = asyncio.create_task(session.left.wait())
        try:
            await asyncio.wait((forward, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (forward, left):
                task.cancel()
            await asyncio.gather(forward, left, return_exceptions=True)

    def heard(self, signal: Signal) -> None:
        """Cuts off what is a device no more, as if its connection had broken."""
        if isinstance(signal, DeviceDeleted):
            for session in self._open.values():
                if session.device_id == signal.device_id and session.forward is not None:
                    session.forward.cancel()

    @contextmanager
    def _session(self, device_id: str) -> Iterator[tuple[str, Session]]:
        session_id, session = secrets.token_urlsafe(16), Session(device_id)
        self._open[session_id] = session
        try:
            yield session_id, session
        finally:
            del self._open[session_id]
            session.left.set()


async def _forward(messages: AsyncIterator[agent_pb2.ChannelRequest], session: Session) -> None:
    try:
        async for message in messages:
            await session.messages.put(message)
    finally:
        await _end(session)


async def _end(session: Session) -> None:
    """The asker hears that nothing more comes, unless it leaves first, maybe with a full queue."""
    end, left = asyncio.create_task(session.messages.put(None)), asyncio.create_task(session.left.wait())
    try:
        await asyncio.wait((end, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        end.cancel()
        left.cancel()
