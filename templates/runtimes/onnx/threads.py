"""How many threads the workload's share of the processor is worth."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "OMP_NUM_THREADS"
CGROUPS = Path("/sys/fs/cgroup")


def thread_count(environment: Mapping[str, str], cgroups: Path = CGROUPS) -> int:
    """What the environment says, or else the limit of the control group, or else the processors; at least 1.

    Libraries left alone start one thread for each processor of the machine, whatever the share.
    """
    told = environment.get(VARIABLE, "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    cores = _limit_v2(cgroups) or _limit_v1(cgroups) or float(len(os.sched_getaffinity(0)))
    return max(1, min(math.ceil(cores), len(os.sched_getaffinity(0))))


def _limit_v2(cgroups: Path) -> float:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html: "max 100000" or "50000 100000"."""
    quota, _, period = _read(cgroups / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else 0.0


def _limit_v1(cgroups: Path) -> float:
    """https://docs.kernel.org/scheduler/sched-bwc.html: a quota of -1 is none."""
    quota, period = (_read(cgroups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
