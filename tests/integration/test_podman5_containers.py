"""What holds of containers with Podman 4 and runc holds with Podman 5 and crun: the same tests, with Debian 13."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration import test_podman_containers, test_podman_faults, test_podman_safety, test_podman_stats
from tests.integration.podman_fixtures import image, machine
from tests.support.device_cgroups import Cgroups
from tests.support.device_root import DeviceRoot, debian_with_podman
from tests.support.podman_machine import PodmanSite, podman_site

__all__ = ["image", "machine"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.slow,
    pytest.mark.xdist_group("podman5-containers"),
    pytest.mark.asyncio(loop_scope="module"),
]

for module in (test_podman_containers, test_podman_safety, test_podman_stats, test_podman_faults):
    globals().update({name: found for name, found in vars(module).items() if name.startswith("test_")})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    root = DeviceRoot(await debian_with_podman("trixie"), without=("/usr/sbin/runc", "/usr/bin/runc"))
    async with podman_site(tmp_path_factory.mktemp("site"), root=root, cgroups=Cgroups.V1) as made:
        yield made
