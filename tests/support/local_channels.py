"""An agent's channels over a backend in this process, against a controller whose sessions the test decides."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.runtime.backend import Handle, LogLine, LogQuery
from edge_agent.runtime.channels import Channels
from edge_agent.runtime.controller_link import ControllerLink
from edge_agent.runtime.fake_backend import FakeBackend, FakeEngine, FakeInstance
from edge_agent.runtime.kept_logs import KeptLogs
from edge_agent.runtime.model import Artifact, Check, CommandProbe, Port, Workload
from edge_agent.runtime.plan import by_deployment
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2
from tests.support.agent_controller import AgentController, Session
from tests.support.fake_agent import DIGEST

DEPLOYMENT = "deployment-1"


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


@dataclass(frozen=True)
class LocalChannels:
    """`instance` is the running instance of DEPLOYMENT, with a port "http"."""

    channels: Channels
    backend: CountingBackend
    instance: FakeInstance
    controller: AgentController
    kept_logs: KeptLogs

    @property
    def engine(self) -> FakeEngine:
        return self.backend.engine

    def follow(self, session_id: str) -> Session:
        """A session that follows the log, to which the agent is invited."""
        query = mqtt_pb2.LogQuery(deployment_id=DEPLOYMENT, follow=True)
        return self.ask(session_id, mqtt_pb2.ChannelInvitation(logs=query))

    def exec(self, *command: str, size: tuple[int, int] | None = None, deployment_id: str = DEPLOYMENT) -> Session:
        query = agent_pb2.ExecQuery(deployment_id=deployment_id, command=command, tty=size is not None)
        if size is not None:
            query.size.CopyFrom(types_pb2.TerminalSize(rows=size[0], columns=size[1]))
        return self._open(agent_pb2.ChannelResponse(exec=query))

    def port(self, name: str = "", deployment_id: str = DEPLOYMENT) -> Session:
        query = agent_pb2.PortQuery(deployment_id=deployment_id, port=name)
        return self._open(agent_pb2.ChannelResponse(port_forward=query))

    def _open(self, opening: agent_pb2.ChannelResponse) -> Session:
        session = self.ask(f"session-{len(self.controller.sessions)}", mqtt_pb2.ChannelInvitation())
        session.said.put_nowait(opening)
        return session

    def ask(self, session_id: str, invitation: mqtt_pb2.ChannelInvitation) -> Session:
        session = self.controller.sessions.setdefault(session_id, Session())
        invitation.session_id = session_id
        self.channels.invited(invitation)
        return session


@asynccontextmanager
async def local_channels(
    link: ControllerLink, controller: AgentController, folder: Path
) -> AsyncIterator[LocalChannels]:
    """Nothing is left of their sessions afterwards."""
    backend = CountingBackend()
    backend.engine.add_image(DIGEST, present=True)
    check = Check(CommandProbe(("true",)))
    artifact = Artifact("registry.example:5000/alice/digits", DIGEST, "linux/amd64")
    ports = (Port("http", 8080),)
    handle = await backend.start(Workload(DEPLOYMENT, 1, "digits", "alice", "cranes", artifact, check, ports=ports))
    instance = backend.engine.instances[handle]
    kept_logs = KeptLogs(folder / "previous-logs")
    channels = Channels(
        link, backend, lambda deployment_id: by_deployment([instance.observed()]).get(deployment_id, ()), kept_logs
    )
    try:
        yield LocalChannels(channels, backend, instance, controller, kept_logs)
    finally:
        await channels.close()
        assert backend.open_logs == 0
        assert instance.commands == []
        await backend.close()
