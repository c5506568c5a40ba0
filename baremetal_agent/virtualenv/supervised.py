"""What a supervisor is told to run: the fields of the file `launch`."""

import os
import resource
from collections.abc import Iterator

from baremetal_agent.supervisor.launching import SANDBOX_FD, STATUS_FD
from baremetal_agent.virtualenv import bubblewrap
from baremetal_agent.virtualenv.cgroups import Joined
from baremetal_agent.virtualenv.confinement import HOST_PID
from baremetal_agent.virtualenv.launcher import LOG_BYTES, Launch
from baremetal_agent.virtualenv.layout import resolved, rewritten
from baremetal_agent.virtualenv.system import this_system
from edge_agent.runtime.model import Resources
from edge_agent.runtime.shares import cores

Field = tuple[str, str]


def described(launch: Launch, joined: Joined, *, confined: bool, grouped: bool) -> list[Field]:
    """`confined`: in a sandbox; `grouped`: in control groups. Raises BackendError where there is no such program."""
    fields = list(_command(launch, confined=confined))
    fields += [("cgroup", str(path)) for path in joined.folders]
    fields += [("oom", str(path)) for path in joined.kills]
    fields += [("set", f"{path}={value}") for path, value in joined.settings]
    fields += [("unit", joined.unit)] if joined.unit else []
    fields += _affinity(launch.confinement.resources)
    fields += [] if grouped else _rlimits(launch.confinement.resources)
    return [*fields, ("log_bytes", str(LOG_BYTES))]


def limits_without_groups(isolation: str) -> frozenset[str]:
    """What can be limited by setrlimit(2) and sched_setaffinity(2): time in whole cores, memory of each process, and
    the processes of a user who is nobody else's."""
    own_user = bool(isolation) and os.geteuid() == 0
    return frozenset({"cpu", "memory", "cpuset"} | ({"pids"} if own_user else set()))


def _command(launch: Launch, *, confined: bool) -> Iterator[Field]:
    # Without a sandbox the whole device is seen.
    layout = launch.layout if confined else rewritten(launch.layout)
    system = this_system(launch.shown)
    layout = resolved(launch.instance.name, layout, system.paths if confined else ("/",))
    words = bubblewrap.inner(layout, launch.confinement)
    if confined:
        # Read from a descriptor, since everybody may see a command line, the workload too.
        words = [bubblewrap.program(), "--json-status-fd", str(STATUS_FD), "--args", str(SANDBOX_FD), "--", *words]
        options = bubblewrap.options(layout, launch.confinement, system)
        yield from (("sandbox", option) for option in options)
    yield from (("arg", word) for word in words)
    yield from (("env", f"{name}={value}") for name, value in layout.environment)
    yield "sandboxed", "1" if confined else ""
    yield "own_pids", "1" if confined and HOST_PID not in launch.confinement.allow else ""
    yield "folder", "/" if confined else layout.folder


def _affinity(resources: Resources) -> Iterator[Field]:
    if resources.cpu_set:
        yield "cores", ",".join(map(str, cores(resources.cpu_set)))


def _rlimits(resources: Resources) -> Iterator[Field]:
    if resources.memory_bytes:
        yield "rlimit", f"{resource.RLIMIT_DATA}:{resources.memory_bytes}"
    if resources.pids:
        yield "rlimit", f"{resource.RLIMIT_NPROC}:{resources.pids}"
