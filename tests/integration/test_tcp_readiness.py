"""Readiness by TCP: a port that something else accepts connections at, on behalf of nobody yet, is no answer."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.runtime.backend import DeployBackend, ExecResult, Observed
from edge_agent.runtime.checks import Answer, ask
from edge_agent.runtime.database import AgentDatabase
from edge_agent.runtime.kept_logs import KeptLogs
from edge_agent.runtime.model import Artifact, Check, Desired, Port, State, TcpProbe, Workload
from edge_agent.runtime.reconciler import Reconciler
from edge_agent.runtime.status import state_of
from longshore.v1.types_pb2 import InstanceStatus
from tests.integration.podman_fixtures import OWNERS, image, site
from tests.support.async_waiting import until_holds
from tests.support.podman_machine import PodmanSite
from tests.support.remote_backend import RemoteBackend
from tests.support.rootless_podman import RootlessPodman
from tests.support.workloads import make_observed, until

__all__ = ["image", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-tcp"),
    pytest.mark.asyncio(loop_scope="module"),
]
LISTENS_LATE = "while [ ! -e /tmp/go ]; do sleep 0.05; done; httpd -p 8080 -h /tmp; while :; do sleep 1000; done"
TCP = Check(TcpProbe("http"), period=0.2, timeout=5.0, deadline=60.0)


class FromOutside(RemoteBackend):
    """The backend of a device as this process sees it: published ports are at the device's own address."""

    address = ""

    async def list(self) -> Sequence[Observed]:
        return [replace(seen, addresses=self._moved(seen)) for seen in await super().list()]

    def _moved(self, seen: Observed) -> tuple[tuple[str, tuple[str, int]], ...]:
        return tuple((name, (self.address, port)) for name, (_, port) in seen.addresses)


@asynccontextmanager
async def backend_of(site: PodmanSite) -> AsyncIterator[FromOutside]:
    backend = await FromOutside.launch(site.command, site.options(f"tcp-{next(OWNERS)}"))
    assert isinstance(backend, FromOutside)
    backend.address = site.device.address
    try:
        yield backend
        for seen in await backend.list():
            await backend.remove(seen.handle)
    finally:
        await backend.close()


@asynccontextmanager
async def reconciled(backend: DeployBackend, workload: Workload, folder: Path) -> AsyncIterator[Reconciler]:
    database = AgentDatabase(folder / "agent.db")
    reconciler = Reconciler(backend, database, "10.0.0.7", lambda: None, kept_logs=KeptLogs(folder / "kept"))
    reconciler.set_desired(Desired(1, (workload,)))
    task = asyncio.create_task(reconciler.run())
    try:
        yield reconciler
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        database.close()


def service(site: PodmanSite, artifact: Artifact) -> Workload:
    workload = site.workload(artifact, LISTENS_LATE, ports=(Port("http", 8080),))
    return replace(workload, readiness=TCP, stop_grace=0.0)


def shows(reconciler: Reconciler, state: State, message: str) -> bool:
    statuses: Sequence[InstanceStatus] = reconciler.statuses()
    return [(state_of(status), message in status.message) for status in statuses] == [(state, True)]


async def test_a_container_is_ready_by_tcp_once_it_listens(site: PodmanSite, image: Artifact, tmp_path: Path) -> None:
    workload = service(site, image)
    async with backend_of(site) as backend, reconciled(backend, workload, tmp_path) as reconciler:
        await until(lambda: shows(reconciler, State.STARTING, "nothing listens on port http"), seconds=60)
        handle = reconciler.handle_of(workload.deployment_id)
        assert handle is not None
        await backend.exec(handle, ["sh", "-c", "echo > /tmp/go"], 20)
        await until(lambda: shows(reconciler, State.RUNNING, "accepts connections"), seconds=60)


async def accepted(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def runs_no_command(command: tuple[str, ...], timeout: float) -> ExecResult:
    raise AssertionError("this check runs no command")


@asynccontextmanager
async def without_nat(site: PodmanSite) -> AsyncIterator[None]:
    """Within the block, the device's rules are gone, as when a firewall is loaded anew."""
    rules = site.folder / "nat-rules"
    await site.device.run("sh", "-c", f"iptables-save -t nat > {rules} && iptables -t nat -F")
    try:
        yield
    finally:
        await site.device.run("iptables-restore", str(rules))


async def test_a_port_that_only_podman_s_monitor_holds_is_no_answer(
    site: PodmanSite, image: Artifact, tmp_path: Path
) -> None:
    workload = service(site, image)
    async with backend_of(site) as backend, reconciled(backend, workload, tmp_path) as reconciler:
        await until(lambda: shows(reconciler, State.STARTING, "nothing listens on port http"), seconds=60)
        (seen,) = await backend.list()
        async with without_nat(site):
            assert await accepted(*dict(seen.addresses)["http"])

            async def listens(port: str) -> bool | None:
                return await backend.listens(seen.handle, port)

            answer = await ask(TCP, seen, runs_no_command, listens)
        assert answer == Answer(False, "nothing listens on port http")
        assert shows(reconciler, State.STARTING, "nothing listens on port http")


async def test_a_port_of_rootless_podman_is_an_answer_once_something_listens_behind_it(
    site: PodmanSite, image: Artifact
) -> None:
    podman = RootlessPodman(site)
    await podman.prepare()
    user, password = site.registry.device_credentials("rootless")
    await podman("pull", "--creds", f"{user}:{password}", image.reference)
    run = ["run", "-d", "--network=bridge", "--publish=18080:8080", image.reference, "sh", "-c", LISTENS_LATE]
    container = (await podman(*run)).splitlines()[-1]
    pid = await podman("inspect", "--format={{.State.Pid}}", container)
    seen = make_observed(addresses=(("http", (site.device.address, 18080)),))

    async def by_the_kernel(_: str) -> bool | None:
        program = f"from edge_agent.podman.machine import listens; print(listens({pid}, 8080))"
        told = await site.device.run(sys.executable, "-c", program)
        return {"True": True, "False": False, "None": None}[told.strip()]

    async def accepts() -> bool:
        return await accepted(site.device.address, 18080)

    async def answers() -> bool:
        return (await ask(TCP, seen, runs_no_command, by_the_kernel)).ok

    await until_holds(accepts)
    assert await ask(TCP, seen, runs_no_command, by_the_kernel) == Answer(False, "nothing listens on port http")
    assert await ask(TCP, seen, runs_no_command) == Answer(False, "port 18080 closes each connection at once")
    await podman("exec", container, "sh", "-c", "echo > /tmp/go")
    await until_holds(answers)
    assert await ask(TCP, seen, runs_no_command) == Answer(True, "port 18080 accepts connections")
    await podman("rm", "--force", "--time=0", container)
