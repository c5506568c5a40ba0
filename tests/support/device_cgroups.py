"""A part of each cgroup hierarchy for one simulated device, so that nothing of its containers is left behind."""

import contextlib
import enum
import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Run with a device's folder as $1 and its name as $2, by a shell in its mount namespace: it sees its own part of each
# hierarchy in the place of the whole.
ENTER = """
while read -r folder; do mount --bind "$folder" "${folder%/*}"; done < "$1/cgroups"
case "$(cat "$1/cgroups-layout")" in
v2) mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup ;;
v1)
  # The folder of mount points is this machine's, and cannot be written to.
  mkdir -p /run/hierarchies
  mount -t tmpfs tmpfs /run/hierarchies
  for mounted in /sys/fs/cgroup/*; do
    case "$mounted" in */unified) continue ;; esac
    mkdir "/run/hierarchies/${mounted##*/}"
    mount --bind "$mounted" "/run/hierarchies/${mounted##*/}"
  done
  while read -r hierarchy; do
    mkdir -p "/run/hierarchies/$hierarchy"
    mount -t cgroup -o "$hierarchy" cgroup "/run/hierarchies/$hierarchy"
    mkdir -p "/run/hierarchies/$hierarchy/$2"
    mount --bind "/run/hierarchies/$hierarchy/$2" "/run/hierarchies/$hierarchy"
    for one in ${hierarchy//,/ }; do [ -e "/run/hierarchies/$one" ] || ln -s "$hierarchy" "/run/hierarchies/$one"; done
  done < "$1/cgroups-more"
  mount --rbind /run/hierarchies /sys/fs/cgroup
  ;;
esac
"""
# What `remove` does in the hierarchies that only devices mount; $1 is the device's name, the rest what they control.
REMOVE = """
name=$1; shift
mount -t tmpfs tmpfs /mnt
for hierarchy in "$@"; do
  mkdir "/mnt/$hierarchy"
  mount -t cgroup -o "$hierarchy" cgroup "/mnt/$hierarchy" || continue
  if [ -d "/mnt/$hierarchy/$name" ]; then find "/mnt/$hierarchy/$name" -depth -type d -exec rmdir {} + ; fi
done
"""


class Cgroups(enum.Enum):
    """What a device's control groups look like."""

    OURS = "ours"  # as on this machine
    V1 = "v1"  # all of v1, also what this machine does not mount, and nothing of v2
    V2 = "v2"  # v2 alone, with the controllers that no hierarchy of v1 has


@functools.cache
def hierarchies() -> tuple[Path, ...]:
    """Where the cgroup hierarchies of this machine are mounted: many for v1, one for v2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return tuple(Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2"))


def folders(name: str) -> list[Path]:
    return [hierarchy / name for hierarchy in hierarchies()]


@functools.cache
def unmounted() -> tuple[str, ...]:
    """What the hierarchies of v1 control that the kernel has and this machine does not mount."""
    lines = [line.split(":") for line in Path("/proc/self/cgroup").read_text().splitlines()]
    have = {path.name for path in hierarchies()}
    return tuple(names for _, names, _ in lines if names and names.removeprefix("name=") not in have)


def describe(name: str, layout: Cgroups, folder: Path) -> None:
    """For `ENTER`, with the folder of a device."""
    (folder / "cgroups").write_text("".join(f"{path}\n" for path in folders(name)))
    (folder / "cgroups-layout").write_text(layout.value)
    (folder / "cgroups-more").write_text("".join(f"{names}\n" for names in unmounted()))


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


def remove_unmounted(name: str) -> None:
    """Removes what a device of `Cgroups.V1` has left where this machine mounts nothing."""
    if unmounted():
        own = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", REMOVE, "sh", name, *unmounted()]
        subprocess.run(own, check=True)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
