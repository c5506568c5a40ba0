"""What holds of containers with Podman 4 and runc holds with Podman 5 and crun: the same tests, with Debian 13."""

import pytest

from tests.contract.test_podman5_backend import site
from tests.integration import test_podman_containers, test_podman_faults, test_podman_safety, test_podman_stats
from tests.integration.podman_fixtures import image, machine

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.slow,
    pytest.mark.xdist_group("podman5-containers"),
    pytest.mark.asyncio(loop_scope="module"),
]

for module in (test_podman_containers, test_podman_safety, test_podman_stats, test_podman_faults):
    globals().update({name: found for name, found in vars(module).items() if name.startswith("test_")})
