"""A command beside a workload: in its namespaces, as its user, within its limits."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from baremetal_agent.virtualenv.confinement import Confinement, dropping
from baremetal_agent.virtualenv.instances import Started

NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd")
# Nothing of what is right for the agent alone, as for the workload itself; then into the control groups.
JOIN = (
    "umask 022; { echo 0 > /proc/self/oom_score_adj; } 2>/dev/null; "
    'for folder in $0; do echo $$ > "$folder/cgroup.procs"; done; exec "$@"'
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
    argv = [*(TERMINAL if terminal else ()), *(dropping(confinement) if root else []), *command]
    if apart:
        user = [] if root else ["--user", "--preserve-credentials"]
        argv = [shutil.which("nsenter") or "nsenter", f"--target={started.pid}", *user, *NAMESPACES, "--", *argv]
    return ["/bin/sh", "-c", JOIN, " ".join(map(str, groups)), *argv]
