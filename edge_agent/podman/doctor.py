"""Looks for what keeps Podman from running workloads on this machine."""

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_agent.host.findings import Finding, ok, problem, warning
from edge_agent.podman.backend import PodmanBackend
from edge_agent.podman.config import HELPER_FOLDERS, unmounted_hierarchies
from edge_agent.podman.storage.database import left_aside, told_of
from edge_agent.podman.storage.examine import structure
from edge_agent.podman.storage.store import Store
from edge_agent.runtime.backend import BackendFacts

OLDEST = (4, 3)
# What Podman calls, and the package of Debian that has it.
PROGRAMS = {"conmon": "conmon"}
HELPERS = {"netavark": "netavark", "aardvark-dns": "aardvark-dns"}


async def examine(backend: PodmanBackend) -> list[Finding]:
    """By asking Podman itself, and by what it needs."""
    facts = await backend.probe()
    info = None if facts.problem else await backend.info()
    found = [*_engine(facts), *_programs(), *_user(), *_accelerators(Path("/"))]
    return found + (list(_storage(info)) + list(_limits(facts)) if info is not None else [])


def _engine(facts: BackendFacts) -> Iterator[Finding]:
    if facts.problem:
        reason, _, said = facts.problem.partition(": ")
        mend = "apt-get install podman" if reason == "PodmanNotInstalled" else "try `podman info`, which says more"
        if told_of(said):
            mend = "move libpod/bolt_state.db (db.sql) in Podman's storage away, then make its containers again"
        yield problem(said or reason, mend)
        return
    version = tuple(int(number) for number in re.findall(r"\d+", facts.version)[:2])
    if version < OLDEST:
        yield problem(f"Podman is {facts.version}", f"install {'.'.join(map(str, OLDEST))} or newer")
    else:
        yield ok(f"Podman {facts.version} answers")


def _programs() -> Iterator[Finding]:
    folders = (*HELPER_FOLDERS, "/usr/bin", "/usr/sbin")
    for program, package in {**PROGRAMS, **HELPERS}.items():
        if not any(Path(folder, program).exists() for folder in folders) and shutil.which(program) is None:
            yield problem(f"{program} is missing", f"apt-get install {package}")
    if shutil.which("runc") is None and shutil.which("crun") is None:
        yield problem("there is no OCI runtime", "apt-get install crun, or runc on a host with control groups v1")
    elif shutil.which("runc") is None and (missing := unmounted_hierarchies()):
        what = f"crun fails without the control groups {', '.join(missing)}, which are not mounted in /sys/fs/cgroup"
        yield problem(what, "apt-get install runc, or mount them")
    if all(shutil.which(name, path="/usr/sbin:/sbin:/usr/bin") is None for name in ("iptables", "nft")):
        yield problem(
            "neither iptables nor nft is there, without which no port is published", "apt-get install iptables"
        )


def _user() -> Iterator[Finding]:
    """Without root Podman needs ids of other users, and a way to the network."""
    if os.geteuid() == 0:
        return
    name = pwd.getpwuid(os.geteuid()).pw_name
    for file in ("/etc/subuid", "/etc/subgid"):
        if not any(line.startswith(f"{name}:") for line in _lines(Path(file))):
            yield problem(
                f"{name} has no ids in {file}",
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
            )
    if shutil.which("newuidmap") is None:
        yield problem("newuidmap is missing", "apt-get install uidmap")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        yield problem("/dev/net/tun cannot be used", "chmod 666 /dev/net/tun")


def _storage(info: Mapping[str, Any]) -> Iterator[Finding]:
    store = info["store"]
    driver, root = str(store["graphDriverName"]), Path(str(store["graphRoot"]))
    free = shutil.disk_usage(root).free // 2**20
    said = f"images are kept below {root} ({driver}), {free} MiB free"
    if driver == "vfs":
        yield warning(said, 'vfs copies each layer whole: set driver = "overlay" in /etc/containers/storage.conf')
    else:
        yield ok(said)
    yield from _damaged_images(Store(root))
    if (damaged := left_aside(Store(root))) is not None:
        yield warning(f"Podman's database was damaged and was made anew; the old one is {damaged}", f"rm {damaged}")


def _damaged_images(store: Store) -> Iterator[Finding]:
    """By what is lacking; no layer is read."""
    layers = store.layers()
    for image in store.images().values():
        if (damage := structure(store, image, layers)) is not None:
            name = (image.names or (image.id[:12],))[0]
            mend = f"the agent fetches its own again; else remove it, `podman rmi {name}`, and pull it again"
            yield warning(f"the image {name} is damaged: {damage.what}", mend)


def _limits(facts: BackendFacts) -> Iterator[Finding]:
    able = facts.capabilities
    lacking = [
        name
        for name, has in (("CPU", able.cpu_limit), ("memory", able.memory_limit), ("pids", able.pids_limit))
        if not has
    ]
    if lacking:
        mend = "run the agent as root, or boot with control groups v2 and delegate the controllers"
        yield warning(f"limits of {', '.join(lacking)} cannot be kept: workloads that ask for them are refused", mend)
    else:
        yield ok(f"limits are kept by {able.limits_by}")


def _accelerators(root: Path) -> Iterator[Finding]:
    nvidia = any((root / "dev").glob("nvidia[0-9]*")) or (root / "dev/nvhost-gpu").exists()
    described = any(any((root / folder).glob("*nvidia*")) for folder in ("etc/cdi", "var/run/cdi", "run/cdi"))
    if nvidia and not described:
        mend = "install the NVIDIA Container Toolkit, then `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
        yield warning("there is an NVIDIA accelerator, and no CDI file that lets containers have it", mend)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
