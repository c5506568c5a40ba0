"""What a workload's share of the processor means inside it: how many cores it sees, and how many threads it starts."""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from edge_agent.runtime.model import Resources

# Numeric libraries start a thread for each core of the machine, whatever the share, unless one of these says otherwise.
# https://docs.python.org/3/using/cmdline.html#envvar-PYTHON_CPU_COUNT for the last one.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NPROC",
    "PYTHON_CPU_COUNT",
)


def whole_cores(resources: Resources) -> int:
    """As many cores as the share needs, at least one; 0 where there is no share."""
    counts = [len(cores(resources.cpu_set))] if resources.cpu_set else []
    if resources.cpu_millis:
        counts.append(max(1, math.ceil(resources.cpu_millis / 1000)))
    return min(counts, default=0)


def thread_variables(resources: Resources, given: Collection[str]) -> Mapping[str, str]:
    """The variables that tell the share; none of those that are `given` already."""
    count = whole_cores(resources)
    return {name: str(count) for name in THREAD_VARIABLES if name not in given} if count else {}


def cores(cpu_set: str) -> Sequence[int]:
    """The cores of a list as in cpuset(7): "0-2,5". Raises ValueError for what is no such list."""
    found: set[int] = set()
    for part in cpu_set.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def chosen_cores(resources: Resources, taken: Iterable[str], present: Collection[int] | None = None) -> str:
    """The cores that the workload is to see, as in cpuset(7); empty for all.

    `taken` are the choices for other workloads: the least used cores are chosen. What a spec names itself is kept.
    """
    if resources.cpu_set:
        return resources.cpu_set
    all_cores = os.sched_getaffinity(0) if present is None else present
    count = whole_cores(resources)
    if not count or count >= len(all_cores):
        return ""
    load = Counter(core for choice in taken if choice for core in cores(choice))
    return ",".join(str(core) for core in sorted(sorted(all_cores, key=lambda core: (load[core], core))[:count]))
