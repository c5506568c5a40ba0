"""The contract over real processes on a simulated device, with real bundles from a real registry."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.contract.backend_contract import BackendContract
from tests.contract.scripted_machine import Artifacts, ScriptedMachine
from tests.support.virtualenv_machine import VirtualenvMachine, VirtualenvSite, virtualenv_site


class ContractMachine(ScriptedMachine[VirtualenvSite], VirtualenvMachine):
    """A `Machine` with real parts."""

    serving = "exec python -m http.server $PORT"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualenvSite]:
    async with virtualenv_site(tmp_path_factory.mktemp("site"), {}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundles(site: VirtualenvSite) -> Artifacts:
    # What the wish says of the platform is not believed: the bundle's own description is.
    foreign = await site.bundle(profile="arm64-cpu")
    return Artifacts(await site.bundle(), replace(foreign, platform="linux/amd64"))


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: VirtualenvSite, bundles: Artifacts) -> AsyncIterator[ContractMachine]:
    async with ContractMachine(site, f"owner-{next(site.numbers)}", bundles) as made:
        yield made


@pytest.mark.podman
@pytest.mark.xdist_group("virtualenv-contract")
@pytest.mark.asyncio(loop_scope="module")
class TestVirtualenvBackend(BackendContract):
    """All of the contract."""
