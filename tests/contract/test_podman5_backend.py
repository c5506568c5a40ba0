"""The contract over Podman 5 and crun, as Debian 13 has them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.backend_contract import BackendContract
from tests.contract.podman_contract import images, machine
from tests.support.device_cgroups import Cgroups
from tests.support.device_root import DeviceRoot, debian_with_podman
from tests.support.podman_machine import PodmanSite, podman_site

__all__ = ["images", "machine"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    root = DeviceRoot(await debian_with_podman("trixie"), without=("/usr/sbin/runc",))
    async with podman_site(tmp_path_factory.mktemp("site"), root=root, cgroups=Cgroups.V1) as made:
        yield made


@pytest.mark.podman
@pytest.mark.xdist_group("podman5-contract")
@pytest.mark.asyncio(loop_scope="module")
class TestPodman5Backend(BackendContract):
    """Nothing of its own."""
