"""Sessions that the controller asked for: the log of an instance, read by a person while it is written."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

import structlog

from edge_agent.runtime.backend import BackendError, Handle, LogLine, LogQuery
from edge_agent.runtime.controller_link import Channel, ControllerError
from longshore.v1 import mqtt_pb2, types_pb2
from longshore.v1.agent_pb2 import ChannelEnd, ChannelError, ChannelRequest

log = structlog.get_logger()

MAX_SESSIONS = 16
# After the last message the controller may take this long to close its side.
CLOSING_TIME = 10.0


class ChannelDialer(Protocol):
    def channel(self, session_id: str) -> AbstractAsyncContextManager[Channel]: ...


class LogSource(Protocol):
    def logs(self, handle: Handle, query: LogQuery) -> AsyncIterator[LogLine]: ...


class CannotServe(Exception):
    """A session that cannot be served; `reason` is one UpperCamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Channels:
    """Serves each invitation in a task of its own, so that a slow reader holds up only itself."""

    def __init__(self, dialer: ChannelDialer, source: LogSource, handle_of: Callable[[str], Handle | None]) -> None:
        self._dialer = dialer
        self._source = source
        self._handle_of = handle_of
        self._sessions: dict[str, asyncio.Task[None]] = {}

    def invited(self, invitation: mqtt_pb2.ChannelInvitation) -> None:
        """Begins the session; an invitation that comes twice counts once."""
        session_id = invitation.session_id
        if not session_id or session_id in self._sessions:
            return
        crowded = len(self._sessions) >= MAX_SESSIONS
        task = asyncio.create_task(self._session(invitation, crowded=crowded), name=f"channel-{session_id}")
        self._sessions[session_id] = task
        task.add_done_callback(lambda _: self._sessions.pop(session_id, None))

    @property
    def count(self) -> int:
        """Sessions that are open now."""
        return len(self._sessions)

    async def close(self) -> None:
        """Afterwards no session is left."""
        tasks = list(self._sessions.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _session(self, invitation: mqtt_pb2.ChannelInvitation, *, crowded: bool) -> None:
        bound = log.bind(session=invitation.session_id, deployment=invitation.logs.deployment_id)
        try:
            async with self._dialer.channel(invitation.session_id) as channel:
                await self._serve(channel, invitation, crowded=crowded)
            bound.info("channel_served")
        except ControllerError as error:
            # Also the way in which a session ends whose asker has left.
            bound.info("channel_ended", error=str(error))
        except Exception:  # noqa: BLE001  # logged with its traceback
            # One session that fails for a reason of its own must not end the others, or the agent.
            bound.exception("channel_failed")

    async def _serve(self, channel: Channel, invitation: mqtt_pb2.ChannelInvitation, *, crowded: bool) -> None:
        """Until all has been said, or the controller has closed."""
        talk = asyncio.create_task(self._talk(channel, invitation, crowded=crowded))
        closed = asyncio.create_task(_until_closed(channel))
        try:
            await asyncio.wait({talk, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not closed.done():
                await talk
                await channel.done_writing()
                await asyncio.wait({closed}, timeout=CLOSING_TIME)
            if closed.done():
                await closed
        finally:
            talk.cancel()
            closed.cancel()
            await asyncio.gather(talk, closed, return_exceptions=True)

    async def _talk(self, channel: Channel, invitation: mqtt_pb2.ChannelInvitation, *, crowded: bool) -> None:
        try:
            if crowded:
                raise CannotServe("TooManySessions", f"this device serves {MAX_SESSIONS} sessions already")
            handle = self._instance(invitation)
            async with aclosing(_closable(self._source.logs(handle, _query(invitation.logs)))) as lines:
                async for line in lines:
                    await channel.write(ChannelRequest(log_line=_line_pb(line)))
            await channel.write(ChannelRequest(end=ChannelEnd()))
        except asyncio.InvalidStateError:
            # The controller has closed between two lines; `_until_closed` knows how.
            return
        except (CannotServe, BackendError) as error:
            await channel.write(ChannelRequest(error=ChannelError(reason=error.reason, message=error.message)))

    def _instance(self, invitation: mqtt_pb2.ChannelInvitation) -> Handle:
        if invitation.WhichOneof("what") != "logs":
            raise CannotServe("Unsupported", "this agent serves logs only; upgrade it")
        handle = self._handle_of(invitation.logs.deployment_id)
        if handle is None:
            raise CannotServe("NoSuchInstance", f"no instance of {invitation.logs.deployment_id} is on this device")
        return handle


async def _until_closed(channel: Channel) -> None:
    """Until the controller closes the session, or the connection breaks. It sends nothing that means anything yet."""
    async for _ in channel:
        pass


async def _closable(lines: AsyncIterator[LogLine]) -> AsyncGenerator[LogLine, None]:
    """The same lines; closes the source as soon as it is closed itself."""
    try:
        async for line in lines:
            yield line
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()


def _query(query: mqtt_pb2.LogQuery) -> LogQuery:
    since = query.since.seconds + query.since.nanos / 1e9
    return LogQuery(tail=max(0, query.tail), since=since, follow=query.follow)


def _line_pb(line: LogLine) -> types_pb2.LogLine:
    message = types_pb2.LogLine(stream=line.stream, text=line.text)
    message.time.FromNanoseconds(int(line.time * 1e9))
    return message
