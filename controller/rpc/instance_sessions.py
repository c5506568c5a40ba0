"""The calls of DeploymentService that speak with one instance: its log, a command inside it, one of its ports."""

from collections.abc import AsyncIterator

import structlog

from controller.deployments.model import Deployment
from controller.deployments.service import DeploymentService
from controller.devices.model import Presence
from controller.errors import FailedPrecondition, InvalidRequest, NotFound, Unavailable
from controller.rpc.access import require_visible
from controller.rpc.interceptor import caller
from controller.rpc.sessions import Sessions
from controller.store.workloads import Placement
from longshore.errors import Reason
from longshore.v1 import agent_pb2, deployment_pb2, mqtt_pb2

log = structlog.get_logger()

# Bytes in one message to a device.
PIECE = 64 * 1024
NO_KIND = mqtt_pb2.ChannelInvitation()


class InstanceSessions:
    """Each method is a call; all raise NotFound, FailedPrecondition and Unavailable as the contract says."""

    def __init__(self, deployments: DeploymentService, sessions: Sessions) -> None:
        self._deployments = deployments
        self._sessions = sessions

    async def read_log(
        self, request: deployment_pb2.ReadInstanceLogRequest
    ) -> AsyncIterator[deployment_pb2.ReadInstanceLogResponse]:
        place = await self._place(request.deployment_id, request.device_id)
        query = mqtt_pb2.LogQuery(
            deployment_id=request.deployment_id, tail=request.tail, follow=request.follow, previous=request.previous
        )
        if request.HasField("since"):
            query.since.CopyFrom(request.since)
        invitation = mqtt_pb2.ChannelInvitation(logs=query)
        async with self._sessions.open(place.workload.device_id, invitation) as session:
            async for message in session.messages():
                if message.HasField("log_line"):
                    yield deployment_pb2.ReadInstanceLogResponse(line=message.log_line)

    async def exec(
        self, requests: AsyncIterator[deployment_pb2.ExecRequest]
    ) -> AsyncIterator[deployment_pb2.ExecResponse]:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            raise InvalidRequest("start", "expected in the first message")
        start = first.start
        if not start.command:
            raise InvalidRequest("start.command", "expected a command")
        place = await self._place(start.deployment_id, start.device_id)
        query = agent_pb2.ExecQuery(
            deployment_id=start.deployment_id, command=start.command, tty=start.tty, size=start.size
        )
        self._note("exec", place, program=start.command[0])
        opening = agent_pb2.ChannelResponse(exec=query)
        async with self._sessions.open(place.workload.device_id, NO_KIND, opening) as session:
            async for message in session.exchange(_input(first, requests)):
                if message.HasField("exit"):
                    ended = deployment_pb2.ExecExit(exit_code=message.exit.exit_code)
                    yield deployment_pb2.ExecResponse(exit=ended)
                elif message.data.stream == "stderr":
                    yield deployment_pb2.ExecResponse(stderr=message.data.data)
                elif message.HasField("data"):
                    yield deployment_pb2.ExecResponse(stdout=message.data.data)

    async def port_forward(
        self, requests: AsyncIterator[deployment_pb2.PortForwardRequest]
    ) -> AsyncIterator[deployment_pb2.PortForwardResponse]:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            raise InvalidRequest("start", "expected in the first message")
        start = first.start
        place = await self._place(start.deployment_id, start.device_id)
        self._note("port-forward", place, port=start.port)
        query = agent_pb2.PortQuery(deployment_id=start.deployment_id, port=start.port)
        opening = agent_pb2.ChannelResponse(port_forward=query)
        async with self._sessions.open(place.workload.device_id, NO_KIND, opening) as session:
            async for message in session.exchange(_bytes(first, requests)):
                if message.HasField("data"):
                    yield deployment_pb2.PortForwardResponse(data=message.data.data, end=message.data.end)

    async def _place(self, deployment_id: str, device: str) -> Placement:
        """Where the instance is that is meant."""
        deployment: Deployment = await self._deployments.get(deployment_id)
        require_visible(deployment.project.user_id, Reason.NO_SUCH_DEPLOYMENT, f"no deployment {deployment_id}")
        place = _single(await self._deployments.placements(deployment.id), device)
        if place.presence == Presence.OFFLINE:
            message = f"device {place.device_name} is offline; what it runs can be reached when it is back"
            raise Unavailable(Reason.DEVICE_UNREACHABLE, message)
        return place

    def _note(self, what: str, place: Placement, **fields: str) -> None:
        log.info(
            "session begins", kind=what, by=caller.get().name, deployment=place.workload.deployment_id,
            device=place.workload.device_id, **fields,
        )  # fmt: skip


async def _input(
    first: deployment_pb2.ExecRequest, requests: AsyncIterator[deployment_pb2.ExecRequest]
) -> AsyncIterator[agent_pb2.ChannelResponse]:
    """What the command gets: input in pieces, and sizes of its terminal. A user who closes its side ends the input."""
    ended = first.stdin_end
    if ended:
        yield _end()
    async for request in requests:
        if request.HasField("start"):
            raise InvalidRequest("start", "only in the first message")
        if request.HasField("resize"):
            yield agent_pb2.ChannelResponse(resize=request.resize)
        if not ended:
            for piece in _pieces(request.stdin):
                yield piece
            if request.stdin_end:
                ended = True
                yield _end()
    if not ended:
        yield _end()


async def _bytes(
    first: deployment_pb2.PortForwardRequest, requests: AsyncIterator[deployment_pb2.PortForwardRequest]
) -> AsyncIterator[agent_pb2.ChannelResponse]:
    """What goes to the port, up to the end of the user's direction."""
    if not first.end:
        async for request in requests:
            if request.HasField("start"):
                raise InvalidRequest("start", "only in the first message")
            for piece in _pieces(request.data):
                yield piece
            if request.end:
                break
    yield _end()


def _pieces(data: bytes) -> list[agent_pb2.ChannelResponse]:
    parts = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
    return [agent_pb2.ChannelResponse(data=agent_pb2.ChannelData(data=part)) for part in parts]


def _end() -> agent_pb2.ChannelResponse:
    return agent_pb2.ChannelResponse(data=agent_pb2.ChannelData(end=True))


def _single(placements: list[Placement], device: str) -> Placement:
    if device:
        placements = [place for place in placements if device in (place.workload.device_id, place.device_name)]
    if not placements:
        raise NotFound(Reason.NO_SUCH_INSTANCE, "no device runs it" if not device else f"{device} does not run it")
    if len(placements) > 1:
        names = ", ".join(place.device_name for place in placements[:5])
        raise FailedPrecondition(Reason.SEVERAL_DEVICES, f"{len(placements)} devices run it ({names}); name one")
    return placements[0]
