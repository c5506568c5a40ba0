"""What depends on the runtime, over Podman 5 and runc: `test_podman5_backend.py` has all of it over crun."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.backend_contract import ExecAndStats, ListAndWatch, Start, StopAndRemove
from tests.contract.exec_contract import OpenExec
from tests.contract.podman_contract import images, machine
from tests.support.device_root import DeviceRoot, debian_with_podman
from tests.support.podman_machine import PodmanSite, podman_site

__all__ = ["images", "machine"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    root = DeviceRoot(await debian_with_podman("trixie"), without=("/usr/bin/crun",))
    async with podman_site(tmp_path_factory.mktemp("site"), root=root) as made:
        yield made


@pytest.mark.podman
@pytest.mark.slow
@pytest.mark.xdist_group("podman5-runc")
@pytest.mark.asyncio(loop_scope="module")
class TestPodman5WithRunc(Start, ListAndWatch, StopAndRemove, ExecAndStats, OpenExec):
    """Nothing of its own."""
