"""The contract over bundles in units of systemd: on a simulated device that systemd runs, by the same tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.backend_contract import BackendContract
from tests.contract.scripted_machine import Artifacts
from tests.contract.test_virtualenv_backend import ContractMachine, bundles
from tests.support import device_systemd
from tests.support.virtualenv_machine import VirtualenvSite, virtualenv_site

__all__ = ["bundles"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-units"),
    pytest.mark.skipif(not device_systemd.available(), reason="needs systemd's program; apt-get install systemd"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualenvSite]:
    async with virtualenv_site(tmp_path_factory.mktemp("site"), {}, systemd=True) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: VirtualenvSite, bundles: Artifacts) -> AsyncIterator[ContractMachine]:
    async with ContractMachine(site, f"owner-{next(site.numbers)}", bundles) as made:
        assert (await made.backend.probe()).capabilities.supervision == "systemd"
        yield made


@pytest.mark.asyncio(loop_scope="module")
class TestVirtualenvUnits(BackendContract):
    """All of the contract."""
