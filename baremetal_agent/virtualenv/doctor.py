"""Looks for what keeps bundles from running on this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from baremetal_agent.virtualenv import units
from baremetal_agent.virtualenv.backend import VirtualenvBackend
from edge_agent.host.findings import Finding, ok, problem, warning
from edge_agent.runtime.backend import BackendFacts

VERSIONS = ("3.11", "3.12", "3.13")


async def examine(folder: Path) -> list[Finding]:
    """By trying it, in a folder that nobody needs."""
    backend = VirtualenvBackend("doctor", folder, _no_credentials, None)
    try:
        facts = await backend.probe()
    finally:
        await backend.close()
    held = await _supervision(facts)
    return [*_engine(facts), *_pythons(), held, *_isolation(facts), *_limits(facts), *_packages()]


def _engine(facts: BackendFacts) -> Iterator[Finding]:
    if facts.problem:
        yield problem(facts.problem.partition(": ")[2], "install the agent again, with `longshore[baremetal-agent]`")
    else:
        yield ok(f"uv {facts.version} makes virtual environments")


def _pythons() -> Iterator[Finding]:
    found = [version for version in VERSIONS if shutil.which(f"python{version}")]
    if found:
        yield ok(f"bundles can be for Python {', '.join(found)}")
    else:
        yield problem("there is no Python that bundles are for", "apt-get install python3")


async def _supervision(facts: BackendFacts) -> Finding:
    if facts.capabilities.supervision != units.Units.name:
        return ok("each workload has a supervisor of its own, which outlives the agent")
    if lacking := await units.usable():
        return problem(f"systemd starts no units: {lacking}", "see `systemctl status` and `journalctl -b`")
    return ok(f"workloads run in units of systemd, below {units.SLICE}")


def _isolation(facts: BackendFacts) -> Iterator[Finding]:
    if facts.capabilities.isolation:
        yield ok(f"workloads are kept to themselves by {facts.capabilities.isolation}")
    else:
        what = "there is no sandbox: workloads are refused unless their spec allows them the whole device by name"
        yield warning(what, "apt-get install bubblewrap")


def _limits(facts: BackendFacts) -> Iterator[Finding]:
    means = facts.capabilities.limits_by
    if means == "rlimit":
        what = "no control groups can be made: time is limited in whole cores, memory for each process by itself"
        yield warning(what, "run the agent as root, on the machine itself or with control groups of its own")
    else:
        yield ok(f"limits are kept by {means}")


def _packages() -> Iterator[Finding]:
    if shutil.which("dpkg-query") is None:
        yield warning("this is no Debian: bundles with apt packages are refused", "leave packages.apt out of them")


async def _no_credentials() -> tuple[str, str]:
    raise RuntimeError("a doctor fetches nothing")
