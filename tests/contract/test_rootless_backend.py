"""The contract over Podman 5 and Podman 4.3 of a user without rights."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.backend_contract import BackendContract
from tests.contract.podman_contract import ContractMachine, images
from tests.contract.scripted_machine import Artifacts
from tests.support.rootless_podman import RootlessMachine, RootlessSite, rootless_site

__all__ = ["images"]


class RootlessContractMachine(RootlessMachine, ContractMachine):
    """A `Machine` with real parts."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["trixie", "bookworm"])
async def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[RootlessSite]:
    async with rootless_site(tmp_path_factory.mktemp("site"), request.param) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: RootlessSite, images: Artifacts) -> AsyncIterator[RootlessContractMachine]:
    async with RootlessContractMachine(site, f"owner-{next(site.numbers)}", images) as made:
        yield made


@pytest.mark.podman
@pytest.mark.slow
@pytest.mark.xdist_group("rootless-contract")
@pytest.mark.asyncio(loop_scope="module")
class TestRootlessBackend(BackendContract):
    """Nothing of its own."""
