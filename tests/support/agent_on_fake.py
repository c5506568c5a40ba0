"""A reconciler over `FakeBackend` and a real database, as integration tests steer it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.database import AgentDatabase
from edge_agent.runtime.fake_backend import FakeBackend, FakeEngine, FakeImage, FakeInstance, FakeProgram
from edge_agent.runtime.kept_logs import KeptLogs
from edge_agent.runtime.model import Desired, State, Workload
from edge_agent.runtime.reconciler import Reconciler
from edge_agent.runtime.status import state_of
from longshore.v1.types_pb2 import InstanceStatus
from tests.support.workloads import digest_of, until

CRASHES = FakeProgram(runs_for=0.0, exit_code=3, lines=("loading the model", "no such file"))


class Service:
    """A real TCP port that answers or does not."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self) -> None:
        self._server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None


class Device:
    """What outlives an agent: its engine, its database file, and the service that instances pretend to be."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.db"
        self.kept_logs = KeptLogs(folder / "previous-logs")
        self.engine = FakeEngine()
        self.service = Service()

    def image(self, revision: int, program: FakeProgram | None = None, deployment_id: str = "d1") -> FakeImage:
        image = FakeImage(program=program or FakeProgram())
        self.engine.addresses[(deployment_id, "http")] = ("127.0.0.1", self.service.port)
        return self.engine.add_image(digest_of(revision, deployment_id), image)

    def instance(self, deployment_id: str = "d1") -> FakeInstance:
        """The only running instance of a deployment."""
        (found,) = (i for i in self.engine.of(deployment_id) if i.runs)
        return found

    @asynccontextmanager
    async def agent(self, **options: Any) -> AsyncIterator["Agent"]:
        database = AgentDatabase(self.path)
        agent = Agent(database, self.engine, {"kept_logs": self.kept_logs, **options})
        task = asyncio.create_task(agent.reconciler.run())
        try:
            yield agent
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            database.close()


class Agent:
    """One life of the agent's heart."""

    def __init__(self, database: AgentDatabase, engine: FakeEngine, options: dict[str, Any]) -> None:
        self.database = database
        self.changes = 0
        given = {"jitter": lambda: 0.0} | options
        self.reconciler = Reconciler(FakeBackend(engine), database, "10.0.0.7", self._changed, **given)

    def _changed(self) -> None:
        self.changes += 1

    def wish(self, *workloads: Workload, stopped: frozenset[str] = frozenset()) -> None:
        self.reconciler.set_desired(Desired(1, workloads, stopped))

    def status(self, deployment_id: str = "d1") -> InstanceStatus | None:
        return next((s for s in self.reconciler.statuses() if s.deployment_id == deployment_id), None)

    def shows(self, state: State, reason: str = "", *, deployment_id: str = "d1", revision: int = 0) -> bool:
        status = self.status(deployment_id)
        return (
            status is not None
            and state_of(status) is state
            and reason in ("", status.reason)
            and revision in (0, status.revision)
        )

    async def until_shows(
        self, state: State, reason: str = "", *, deployment_id: str = "d1", revision: int = 0
    ) -> None:
        def shows() -> bool:
            return self.shows(state, reason, deployment_id=deployment_id, revision=revision)

        try:
            await until(shows)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status(deployment_id)}") from error

    async def until_ready(self, deployment_id: str = "d1", revision: int = 0) -> InstanceStatus:
        await self.until_shows(State.RUNNING, deployment_id=deployment_id, revision=revision)
        await until(lambda: bool((status := self.status(deployment_id)) and status.ready))
        status = self.status(deployment_id)
        assert status is not None
        return status

    def told(self, deployment_id: str = "d1") -> list[tuple[int, str, bool, str]]:
        """What the journal says of a deployment: revision, state, ready and reason of each entry."""
        return [
            (e.instance.revision, str(state_of(e.instance)), e.instance.ready, e.instance.reason)
            for e in self.database.unacknowledged(1000)
            if e.instance.deployment_id == deployment_id
        ]


def no_network() -> BackendError:
    return BackendError("ImagePullFailed", "the registry does not answer", retryable=True)
