"""A command beside a workload: in its namespaces, as its user, within its limits."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from baremetal_agent.virtualenv.confinement import NO_NEW_RIGHTS, Confinement, dropping
from baremetal_agent.virtualenv.instances import Started

NAMESPACES = {"mnt": "--mount", "pid": "--pid", "ipc": "--ipc", "uts": "--uts", "cgroup": "--cgroup"}
# Nothing of what is right for the agent alone, as for the workload itself; then into the control groups, as the
# supervisor's `enter` does.
JOIN = (
    "umask 022; { echo 0 > /proc/self/oom_score_adj; } 2>/dev/null; "
    'for folder in $0; do file="$folder/tasks"; [ -e "$file" ] || file="$folder/cgroup.procs"; echo 0 > "$file"; done; '
    'exec "$@"'
)


# A session of its own, whose terminal its standard input is; inside, where the command knows its own numbers.
TERMINAL = ("/usr/bin/setsid", "--ctty")


def entering(
    started: Started,
    confinement: Confinement,
    groups: Iterable[Path],
    command: Sequence[str],
    *,
    apart: bool,
    terminal: bool,
) -> list[str]:
    """The command line; `groups` are control groups, `apart` says that the workload has namespaces of its own."""
    root = os.geteuid() == 0
    dropped = dropping(confinement) if root else NO_NEW_RIGHTS
    argv = [*(TERMINAL if terminal else ()), *dropped, *command]
    if apart:
        user = [] if root else ["--user", "--preserve-credentials"]
        there = [*user, *_namespaces(started.pid), "--root", "--wd"]
        argv = [shutil.which("nsenter") or "nsenter", f"--target={started.pid}", *there, "--", *argv]
    return joining(groups, argv)


def joining(groups: Iterable[Path], argv: Sequence[str]) -> list[str]:
    """The command line that becomes `argv` in these control groups."""
    return ["/bin/sh", "-c", JOIN, " ".join(map(str, groups)), *argv]


def _namespaces(pid: int) -> Iterator[str]:
    """Options for those that are the workload's own. Into one that it shares with the device only root could go again;
    one that has ended has none."""
    for kind, option in NAMESPACES.items():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink():
                yield option
