"""Serving sessions: each in a task of its own, from the invitation to the last message."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from edge_agent.runtime.backend import BackendError, DeployBackend, Observed
from edge_agent.runtime.channels.exec import serve_exec
from edge_agent.runtime.channels.logs import serve_log
from edge_agent.runtime.channels.port import serve_port
from edge_agent.runtime.channels.wire import CannotServe, Wire
from edge_agent.runtime.controller_link import Channel, ControllerError
from edge_agent.runtime.kept_logs import KeptLogs
from longshore.v1 import mqtt_pb2
from longshore.v1.agent_pb2 import ChannelError, ChannelRequest

log = structlog.get_logger()

# Each holds up to 1 MiB of input that its command or port does not take.
MAX_SESSIONS = 64
# After the last message the controller may take this long to close its side.
CLOSING_TIME = 10.0


class ChannelDialer(Protocol):
    def channel(self, session_id: str) -> AbstractAsyncContextManager[Channel]: ...


class Channels:
    """Serves each invitation in a task of its own, so that a slow reader holds up only itself.

    `instances_of` gives the instances of a deployment, first the one of which a user speaks.
    """

    def __init__(
        self,
        dialer: ChannelDialer,
        backend: DeployBackend,
        instances_of: Callable[[str], Sequence[Observed]],
        kept_logs: KeptLogs,
    ) -> None:
        self._dialer = dialer
        self._backend = backend
        self._instances_of = instances_of
        self._kept_logs = kept_logs
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
        bound = log.bind(session=invitation.session_id)
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
        wire = Wire(channel)
        talk = asyncio.create_task(self._talk(wire, invitation, crowded=crowded))
        closed = asyncio.create_task(wire.listen())
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

    async def _talk(self, wire: Wire, invitation: mqtt_pb2.ChannelInvitation, *, crowded: bool) -> None:
        try:
            if crowded:
                raise CannotServe("TooManySessions", f"this device serves {MAX_SESSIONS} sessions already")
            await self._serve_kind(wire, invitation)
        except asyncio.InvalidStateError:
            # The controller has closed between two messages; `listen` knows how.
            return
        except (CannotServe, BackendError) as error:
            await wire.send(ChannelRequest(error=ChannelError(reason=error.reason, message=error.message)))

    async def _serve_kind(self, wire: Wire, invitation: mqtt_pb2.ChannelInvitation) -> None:
        if invitation.WhichOneof("what") == "logs":
            instances = self._instances_of(invitation.logs.deployment_id)
            await serve_log(wire, self._backend, self._kept_logs, instances, invitation.logs)
            return
        # What is executed is believed only from the controller itself: anybody may have written the invitation.
        asked = await wire.opening()
        if asked.WhichOneof("payload") == "exec":
            await serve_exec(wire, self._backend, self._instances_of(asked.exec.deployment_id), asked.exec)
        elif asked.WhichOneof("payload") == "port_forward":
            port = asked.port_forward
            await serve_port(wire, self._instances_of(port.deployment_id), port)
        else:
            raise CannotServe("Unsupported", "this agent does not know what is asked for; upgrade it")
