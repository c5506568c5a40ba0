"""Instances in transient units of systemd: a scope for each, in a slice of ours.

A scope holds processes that another one than systemd has started, and lasts as long as any of them does. So the agent,
its service and the supervisor may each end without it; and the supervisor is started, and told what it is to hold, as
on machines without systemd. systemd.scope(5), systemd.resource-control(5), systemd-run(1)
"""

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import structlog

from baremetal_agent.virtualenv.cgroups import MOUNTS, WANTED, WANTED_UNIFIED, Cgroups, Joined, mounted
from baremetal_agent.virtualenv.commands import NOT_FOUND, Ended, run
from baremetal_agent.virtualenv.entering import joining
from baremetal_agent.virtualenv.instances import Instance
from baremetal_agent.virtualenv.launcher import Launch
from baremetal_agent.virtualenv.placing import start_failed
from edge_agent.runtime.backend import BackendError, BackendUnavailable
from edge_agent.runtime.model import Resources

log = structlog.get_logger()

BOOTED = Path("/run/systemd/system")
PROGRAM = "systemd-run"
SLICE = "longshore.slice"
NOT_LOADED = 5
SECONDS = 30.0
# Hierarchies of version 1 in which systemd makes the groups of its units. In those of the other controllers the agent
# makes some, of the same name.
KEPT = ("cpu", "memory", "pids", "devices", "blkio")
# By these it knows which processes are whose: on a machine that has both versions, by the second.
TRACKED = ("unified", "name=systemd")
# What the supervisor of a workload takes of its unit comes on top of the workload's limits.
OWN_PROCESSES, OWN_BYTES = 1, 4 * 2**20
# How long a scope may take to end when the machine goes down.
STOP_SECONDS = 20
SWAP = "memory.memsw.limit_in_bytes"


class Units:
    """`Placing` in scopes; also of instances that are in control groups of an agent from before."""

    name = "systemd"
    forks = False

    def __init__(self, groups: Cgroups) -> None:
        self.cgroups = groups
        kept = {place for controller, place in groups.hierarchies.items() if controller in (*KEPT, *TRACKED)}
        others = {name: place for name, place in groups.hierarchies.items() if place not in kept}
        self._own = Cgroups(groups.version, others if groups.version == 1 else {})

    def limits(self, isolation: str) -> tuple[frozenset[str], str]:
        return self.cgroups.controllers & {*WANTED, *WANTED_UNIFIED}, f"cgroup-v{self.cgroups.version}"

    def group(self, owner: str, instance_id: str) -> str:
        return f"{SLICE}/{unit_name(instance_id)}"

    def prepare(self, launch: Launch) -> Joined:
        name, resources = launch.instance.cgroup, launch.confinement.resources
        made = self._own.create(name, resources)
        folders = (*made.folders, self._tracked(name))
        return Joined(folders, self.cgroups.kills(name), tuple(self._settings(name, resources)), Path(name).name)

    def _tracked(self, name: str) -> Path:
        """The folder that is there for as long as the unit is."""
        places = self.cgroups.places(name)
        return next(places[hierarchy] for hierarchy in (*TRACKED, *places) if hierarchy in places)

    def _settings(self, name: str, resources: Resources) -> Iterator[tuple[Path, str]]:
        """What systemd cannot be asked for: version 1 without swap beyond the limit, and that the kernel takes the
        workload and not its supervisor when memory runs out, in version 2 all of the workload."""
        memory = self.cgroups.places(name).get("memory")
        unified = self.cgroups.version == 2
        if memory and resources.memory_bytes and not unified and (memory.parents[1] / SWAP).exists():
            yield memory / SWAP, str(resources.memory_bytes + OWN_BYTES)
        yield Path("/proc/self/oom_score_adj"), "-1000"
        if memory and unified:
            yield memory / "memory.oom.group", "1"

    def starting(self, launch: Launch, argv: Sequence[str]) -> Sequence[str]:
        instance = launch.instance
        devices = [node_name(Path(bind.source)) for bind in launch.layout.binds if bind.device]
        found = properties(launch.confinement.resources, devices, unified=self.cgroups.version == 2)
        what = f"{instance.name} revision {instance.revision}, {instance.deployment_id}"
        return in_unit(Path(instance.cgroup).name, what, found, argv)

    def replacing(self, instance: Instance, argv: Sequence[str]) -> Sequence[str]:
        return joining(self.cgroups.folders(instance.cgroup), argv) if instance.launcher == self.name else argv

    async def refusal(self, what: str, said: str) -> BackendError:
        if lacking := await usable():
            message = f"cannot start {what}: systemd does not start units: {lacking}"
            return BackendUnavailable("SystemdUnavailable", message)
        # It is this one that cannot be: nothing else is to wait for it.
        return start_failed(what, said)

    async def clear(self, instance: Instance) -> None:
        if instance.launcher != self.name:
            await self.cgroups.remove(instance.cgroup)
            return
        if self._tracked(instance.cgroup).is_dir():
            await _stop(Path(instance.cgroup).name)
        await self._own.remove(instance.cgroup)

    async def leave(self) -> None:
        tracked = self._tracked(SLICE)
        if tracked.is_dir() and not any(path.is_dir() for path in tracked.iterdir()):
            await _stop(SLICE)


def find_units(mounts: Path = MOUNTS, booted: Path = BOOTED) -> Units | None:
    """None where systemd does not run this machine, or not for this agent, which has to be root."""
    if not booted.is_dir() or os.geteuid() != 0 or shutil.which(PROGRAM) is None:
        return None
    groups = unit_groups(mounts)
    return Units(groups) if groups is not None else None


def unit_groups(mounts: Path = MOUNTS) -> Cgroups | None:
    """The hierarchies in which units have control groups. None where nothing tells which processes are a unit's."""
    unified, separate = mounted(mounts)
    if unified is not None and not any(name in separate for name in WANTED):
        there = (unified / "cgroup.controllers").read_text().split()
        return Cgroups(2, {"unified": unified, **{name: unified for name in WANTED_UNIFIED if name in there}})
    both = {**separate, "unified": unified} if unified is not None else separate
    names = (*TRACKED, *KEPT, *WANTED)
    found = {name: place for name in names if (place := both.get(name)) is not None and os.access(place, os.W_OK)}
    return Cgroups(1, found) if any(name in found for name in TRACKED) else None


async def usable() -> str:
    """Why no unit can be started; empty where one can."""
    ended = await _run(*in_unit("", "A trial of Longshore's", ["Delegate=yes"], ["true"]))
    return "" if ended.code == 0 else ended.last_words


def unit_name(instance_id: str) -> str:
    return f"longshore-{re.sub('[^A-Za-z0-9:_.-]', '_', instance_id)}.scope"


def node_name(node: Path) -> str:
    """As DeviceAllow= takes it."""
    if node.is_relative_to("/dev"):
        return str(node)
    found = node.stat()
    kind = "block" if stat.S_ISBLK(found.st_mode) else "char"
    return f"/dev/{kind}/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def in_unit(unit: str, what: str, settings: Iterable[str], argv: Sequence[str]) -> list[str]:
    """The command line that becomes `argv` in a unit of this name, which is there then; an empty one: of any name."""
    named = [f"--unit={unit}"] if unit else []
    given = [f"--property={setting}" for setting in settings]
    scope = [PROGRAM, "--scope", "--quiet", "--collect", f"--slice={SLICE}", f"--description={what}"]
    return [*scope, *named, *given, "--", *argv]


def properties(resources: Resources, devices: Iterable[str], *, unified: bool) -> list[str]:
    """Of a unit with these limits, and with no device nodes but the harmless ones and these. Delegated: commands enter
    it, and to run out of memory does not end it."""
    found = ["Delegate=yes", f"TimeoutStopSec={STOP_SECONDS}", "DevicePolicy=closed"]
    found += [f"DeviceAllow={device} rw" for device in devices]
    found += [f"CPUQuota={resources.cpu_millis / 10:g}%"] if resources.cpu_millis else []
    found += [f"MemoryMax={resources.memory_bytes + OWN_BYTES}"] if resources.memory_bytes else []
    found += ["MemorySwapMax=0"] if resources.memory_bytes and unified else []
    found += [f"TasksMax={resources.pids + OWN_PROCESSES}"] if resources.pids else []
    found += [f"AllowedCPUs={resources.cpu_set}"] if resources.cpu_set and unified else []
    return found


async def _stop(unit: str) -> None:
    ended = await _run("systemctl", "stop", unit)
    # It may have ended by itself meanwhile.
    if ended.code not in (0, NOT_LOADED):
        log.warning("unit_not_stopped", unit=unit, error=ended.last_words)


async def _run(*argv: str) -> Ended:
    try:
        async with asyncio.timeout(SECONDS):
            return await run(*argv)
    except TimeoutError:
        return Ended(NOT_FOUND, f"{argv[0]} does not come back")
