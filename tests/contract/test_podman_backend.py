"""The contract over real Podman on a simulated device, with a real registry."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.backend_contract import BackendContract
from tests.contract.exec_contract import opened
from tests.contract.machine import Command, Program
from tests.contract.podman_contract import ContractMachine, images, machine
from tests.support.async_waiting import until_holds
from tests.support.podman_machine import PodmanSite, podman_site

__all__ = ["images", "machine"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    async with podman_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.mark.podman
@pytest.mark.xdist_group("podman-contract")
@pytest.mark.asyncio(loop_scope="module")
class TestPodmanBackend(BackendContract):
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
