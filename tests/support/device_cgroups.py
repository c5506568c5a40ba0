"""A part of each cgroup hierarchy for one simulated device, so that nothing of its containers is left behind."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path


@functools.cache
def hierarchies() -> tuple[Path, ...]:
    """Where the cgroup hierarchies of this machine are mounted: many for v1, one for v2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return tuple(Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2"))


def folders(name: str) -> list[Path]:
    return [hierarchy / name for hierarchy in hierarchies()]


def create(name: str) -> None:
    """Afterwards a process can join the device's cgroup in every hierarchy."""
    for folder in folders(name):
        folder.mkdir(exist_ok=True)
        # A new v1 cpuset is empty, and nothing may run in an empty one.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (folder / setting).exists() and not (folder / setting).read_text().strip():
                (folder / setting).write_text((folder.parent / setting).read_text())


def joining(name: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` within the device's cgroups."""
    script = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in folders(name))
    return ["sh", "-c", f'{script}; exec "$@"', "sh", *argv]


def remove(name: str) -> bool:
    """Removes what is empty; whether all is gone. Not while something runs inside."""
    for folder in folders(name):
        if folder.exists():
            for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
                _remove_folder(below)
            _remove_folder(folder)
    return not any(folder.exists() for folder in folders(name))


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
