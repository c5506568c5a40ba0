"""What holds for all tests: those that need more than this machine gives are skipped, and say what is missing."""

import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. CI tries the same examples each time; people try new ones.
settings.register_profile(
    "longshore",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("longshore")

PROGRAMS = {
    "podman": "podman",
    "mosquitto": "mosquitto",
    "docker-registry": "docker-registry",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "ip": "iproute2",
}


def missing_for_containers() -> str:
    """Why tests with real containers cannot run here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces and Podman; run it as root"
    lacking = [package for program, package in PROGRAMS.items() if _program(program) is None]
    if lacking:
        return f"needs the packages {' '.join(lacking)}; tools/setup.sh installs them"
    made = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"needs namespaces, which this machine refuses: {made.stderr.strip()}" if made.returncode else ""


def _program(name: str) -> str | None:
    """Like `which`, also where the administrator's programs are, which are not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _refuse_lost_groups(config, items)
    with_containers = [item for item in items if item.get_closest_marker("podman") is not None]
    if with_containers and (reason := missing_for_containers()):
        for item in with_containers:
            item.add_marker(pytest.mark.skip(reason=reason))


def _refuse_lost_groups(config: pytest.Config, items: list[pytest.Item]) -> None:
    """pytest-xdist keeps a group on one worker by a suffix of its tests' ids; without it, it would say nothing."""
    if not getattr(config.option, "loadgroup", False):
        return
    lost = [item for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if lost:
        raise pytest.UsageError(f"this pytest-xdist loses the groups of tests under pytest {pytest.__version__}")
