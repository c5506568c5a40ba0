"""What holds for all tests: those that need more than this machine gives are skipped, and say what is missing."""

import functools
import os
import shutil
import signal
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

NO_CONTAINERS = "no containers here"
# A shell that begins the tests in its background has Ctrl-C ignored, in all that they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROGRAMS = {
    "podman": "podman",
    "mosquitto": "mosquitto",
    "docker-registry": "docker-registry",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "bwrap": "bubblewrap",
}


def missing_for_containers() -> str:
    """Why tests with real containers cannot run here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces and Podman; run it as root: sudo make test"
    if lacking := missing_packages():
        return f"needs the packages {' '.join(lacking)}; tools/setup.sh installs them"
    made = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"needs namespaces, which this machine refuses: {made.stderr.strip()}" if made.returncode else ""


@functools.cache
def missing_packages() -> list[str]:
    return [package for program, package in PROGRAMS.items() if _program(program) is None]


def _program(name: str) -> str | None:
    """Like `which`, also where the administrator's programs are, which are not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _refuse_lost_groups(config, items)
    with_containers = [item for item in items if item.get_closest_marker("podman") is not None]
    if "CI" in os.environ and missing_packages():
        # Nobody reads there what was skipped: `pytest_runtest_setup` fails them.
        return
    if with_containers and (reason := missing_for_containers()):
        for item in with_containers:
            item.add_marker(pytest.mark.skip(reason=f"{NO_CONTAINERS}: {reason}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "CI" in os.environ and item.get_closest_marker("podman") is not None and (lacking := missing_packages()):
        pytest.fail(f"CI lacks the packages {' '.join(lacking)}; tools/setup.sh installs them", pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last words of a run that left out the tests with containers say so."""
    why = [
        report.longrepr[2] for report in terminalreporter.getreports("skipped") if isinstance(report.longrepr, tuple)
    ]
    if left_out := [text for text in why if NO_CONTAINERS in text]:
        terminalreporter.section("NOT TESTED", red=True)
        reason = left_out[0].partition(f"{NO_CONTAINERS}: ")[2]
        terminalreporter.line(f"{len(left_out)} tests with containers did not run; each {reason}", red=True)


def _refuse_lost_groups(config: pytest.Config, items: list[pytest.Item]) -> None:
    """pytest-xdist keeps a group on one worker by a suffix of its tests' ids; without it, it would say nothing."""
    if not getattr(config.option, "loadgroup", False):
        return
    lost = [item for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if lost:
        raise pytest.UsageError(f"this pytest-xdist loses the groups of tests under pytest {pytest.__version__}")
