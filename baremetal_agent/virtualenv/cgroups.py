"""Control groups of workloads, where this agent may make some: version 2, or version 1 with its many hierarchies.

https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.runtime.model import Resources

PERIOD = 100_000
MOUNTS = Path("/proc/self/mounts")
WANTED = ("cpu", "cpuacct", "memory", "pids", "cpuset", "blkio")
# What of version 2 can be limited.
WANTED_UNIFIED = ("cpu", "memory", "pids", "cpuset", "io")
# How long a group of which nothing runs any more may refuse to go.
REMOVE_SECONDS = 2.0


@dataclass(frozen=True)
class Joined:
    """`folders` are those that a process enters; `kills` are files that count what the kernel killed for memory."""

    folders: tuple[Path, ...] = ()
    kills: tuple[Path, ...] = ()
    # Files of the kernel's and what the supervisor is to write to them, each only if those before could be written to.
    settings: tuple[tuple[Path, str], ...] = ()
    # The unit of systemd that the workload and its supervisor are in.
    unit: str = ""


@dataclass(frozen=True)
class Cgroups:
    """`hierarchies`: controller -> folder below which groups are made; in version 2 the same for all."""

    version: int
    hierarchies: Mapping[str, Path]

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(self.hierarchies)

    def create(self, name: str, resources: Resources) -> Joined:
        """A group of this name ("parent/child") with these limits, as far as there are controllers. Raises OSError."""
        folders = self.places(name)
        for controller, folder in folders.items():
            self._make(folder, controller)
        for controller, file, value in self._limits(resources):
            _write(folders[controller] / file, value)
        return Joined(tuple(dict.fromkeys(folders.values())), self.kills(name))

    def kills(self, name: str) -> tuple[Path, ...]:
        """The file that counts what the kernel killed for memory in a group."""
        memory = self.places(name).get("memory")
        counter = "memory.events" if self.version == 2 else "memory.oom_control"
        return (memory / counter,) if memory else ()

    def folders(self, name: str) -> tuple[Path, ...]:
        """Those that there are of a group."""
        return tuple(folder for folder in dict.fromkeys(self.places(name).values()) if folder.is_dir())

    def processes(self, name: str) -> list[int]:
        """Numbers of those that are in the group."""
        found: set[int] = set()
        for folder in self.folders(name):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        return sorted(found)

    async def remove(self, name: str) -> None:
        """The group is gone, if nothing runs in it; so is its parent, if that has no other."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            self._try_removing(name)
            if not self.folders(name) or time.monotonic() > deadline:
                return
            # A process that has ended may be counted for a moment still.
            await asyncio.sleep(0.01)

    def _try_removing(self, name: str) -> None:
        for folder in dict.fromkeys(self.places(name).values()):
            for empty in (folder, folder.parent):
                with contextlib.suppress(OSError):
                    empty.rmdir()

    def places(self, name: str) -> dict[str, Path]:
        """The folder of a group, by controller."""
        return {controller: root / name for controller, root in self.hierarchies.items()}

    def _make(self, folder: Path, controller: str) -> None:
        for level in (folder.parent, folder):
            level.mkdir(exist_ok=True)
            if self.version == 1 and controller == "cpuset":
                _inherit_cores(level)
        if self.version == 2:
            _delegate(folder.parent, self.controllers)

    def _limits(self, resources: Resources) -> list[tuple[str, str, str]]:
        """Controller, file and value of each limit, in the order in which they are set."""
        quota = max(1000, resources.cpu_millis * PERIOD // 1000)
        unified = self.version == 2
        found: list[tuple[str, str, str]] = []
        if resources.cpu_millis and unified:
            found.append(("cpu", "cpu.max", f"{quota} {PERIOD}"))
        elif resources.cpu_millis:
            found += [("cpu", "cpu.cfs_period_us", str(PERIOD)), ("cpu", "cpu.cfs_quota_us", str(quota))]
        if resources.memory_bytes:
            found += self._memory_limits(resources.memory_bytes)
        if resources.pids:
            found.append(("pids", "pids.max", str(resources.pids)))
        if resources.cpu_set:
            found.append(("cpuset", "cpuset.cpus", resources.cpu_set))
        return [limit for limit in found if limit[0] in self.hierarchies]

    def _memory_limits(self, limit: int) -> list[tuple[str, str, str]]:
        """Memory and swap together are no more than that."""
        if self.version == 2:
            return [("memory", "memory.max", str(limit)), ("memory", "memory.swap.max", "0"),
                    ("memory", "memory.oom.group", "1")]  # fmt: skip
        both = ("memory", "memory.memsw.limit_in_bytes", str(limit))
        return [("memory", "memory.limit_in_bytes", str(limit)), both]


def find_cgroups(mounts: Path = MOUNTS) -> Cgroups:
    """Those of this machine below which this agent may make groups; without hierarchies where it may make none."""
    unified, separate = mounted(mounts)
    if unified is not None and (found := _unified(unified)):
        return found
    writable = {name: place for name, place in separate.items() if name in WANTED and os.access(place, os.W_OK)}
    return Cgroups(1, writable)


def mounted(mounts: Path = MOUNTS) -> tuple[Path | None, dict[str, Path]]:
    """Where the hierarchy of version 2 is mounted, and those of version 1, by the options of their mounts."""
    unified: Path | None = None
    separate: dict[str, Path] = {}
    for line in mounts.read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            unified = Path(place)
        elif kind == "cgroup":
            separate |= {name: Path(place) for name in options.split(",")}
    return unified, separate


def _unified(root: Path) -> Cgroups | None:
    try:
        there = [name for name in (root / "cgroup.controllers").read_text().split() if name in WANTED_UNIFIED]
        if not there or not os.access(root, os.W_OK):
            return None
        _delegate(root, frozenset(there))
    except OSError:
        # Processes beside the groups forbid it, as in the namespace of a container.
        return None
    return Cgroups(2, dict.fromkeys(there, root))


def _delegate(folder: Path, controllers: frozenset[str]) -> None:
    """Groups below this folder have these controllers."""
    missing = controllers - set((folder / "cgroup.subtree_control").read_text().split())
    if missing:
        _write(folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))


def _inherit_cores(folder: Path) -> None:
    # A new group of version 1 has none, and nothing may run in it.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            _write(folder / name, (folder.parent / name).read_text().strip())


def _write(path: Path, value: str) -> None:
    # A kernel may lack the part that a file speaks of, such as the accounting of swap.
    if path.exists():
        path.write_text(value)
