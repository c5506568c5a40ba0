"""The contract over real Podman on a simulated device, with a real registry."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, Port, Workload
from tests.contract.backend_contract import BackendContract
from tests.contract.exec_contract import opened
from tests.contract.machine import Command, Program
from tests.contract.shell_commands import lasting, shell_command
from tests.support.async_waiting import until_holds
from tests.support.podman_machine import PodmanMachine, PodmanSite, podman_site

POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
SCRIPTS = {
    Program.POLITE: POLITE,
    Program.STUBBORN: "trap '' TERM; echo ready; while :; do sleep 1000; done",
    Program.FAILS: "exit 3",
    Program.FAILS_SOON: "sleep 0.5; exit 7",
    Program.WRITES: f"for n in 1 2 3 4 5; do echo line $n; done; {POLITE}",
    Program.NO_COMMAND: "",
    Program.WORKS: "trap 'exit 0' TERM; while :; do n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 0.1; done",
    Program.SERVES: f"httpd -p 8080 -h /tmp; {POLITE}",
}
OWNERS = itertools.count(1)
# Seconds, by which the commands of one machine that last are known.
MARKS = itertools.count(90_001)


@dataclass(frozen=True)
class Images:
    common: Artifact
    foreign: Artifact


class ContractMachine(PodmanMachine):
    """A `Machine` with real parts."""

    def __init__(self, site: PodmanSite, owner: str, images: Images) -> None:
        super().__init__(site, owner)
        self._mark = next(MARKS)
        self._images = images

    def workload(self, program: Program, *, host_port: int | None = None, revision: int = 1) -> Workload:
        ports = () if host_port is None else (Port("http", 8080, host_port),)
        made = replace(self.site.workload(self._images.common, SCRIPTS[program], ports=ports), revision=revision)
        return replace(made, entrypoint=("nonesuch",)) if program is Program.NO_COMMAND else made

    def command(self, command: Command) -> Sequence[str]:
        return shell_command(command, self._mark)

    async def lasting(self, handle: Handle) -> int:
        return await lasting(self.site.device, self._mark)

    def missing(self) -> Workload:
        digest = "sha256:" + hashlib.sha256(b"nowhere").hexdigest()
        return self.site.workload(replace(self._images.common, digest=digest), POLITE)

    def unreachable(self) -> Workload:
        nobody = f"{self.site.device.gateway}:1/x"
        return self.site.workload(replace(self._images.common, repository=nobody, digest="sha256:" + "1" * 64), POLITE)

    def foreign(self) -> Workload:
        return self.site.workload(self._images.foreign, POLITE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    async with podman_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def images(site: PodmanSite) -> Images:
    return Images(await site.image(), await site.image(architecture="s390x"))


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: PodmanSite, images: Images) -> AsyncIterator[ContractMachine]:
    made = ContractMachine(site, f"owner-{next(OWNERS)}", images)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.podman
@pytest.mark.xdist_group("podman-contract")
@pytest.mark.asyncio(loop_scope="module")
class TestPodmanBackend(BackendContract):
    async def test_death_is_hinted_at_without_anybody_listing(self, machine: ContractMachine) -> None:
        workload = machine.workload(Program.FAILS_SOON)
        await machine.backend.prepare(workload, lambda _: None)
        handle = await machine.backend.start(workload)
        async with asyncio.timeout(30):
            await anext(aiter(machine.backend.watch()))
        (seen,) = await machine.backend.list()
        assert (seen.handle, seen.exit_code) == (handle, 7)

    async def test_exit_code_is_known_although_podman_has_forgotten_it(self, machine: ContractMachine) -> None:
        workload = machine.workload(Program.POLITE)
        await machine.backend.prepare(workload, lambda _: None)
        handle = await machine.backend.start(workload)
        async with opened(machine, handle, Command.ENDS) as session:

            async def forgotten() -> bool:
                listed = await machine.inspect(handle, "ExecIDs")
                return listed == "[]"

            # It is listed from before `open_exec` returns until 5 s after its end.
            await until_holds(forgotten)
            assert await session.wait() == 7
