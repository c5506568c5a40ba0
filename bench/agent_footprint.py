"""Memory and CPU of all that a quiet device with one ready workload (checked each 10 s) runs because of us: every
process besides the workload and the device's first one. Over two minutes after one of rest, for each backend.

Memory is PSS and USS, as /proc/PID/smaps has them. Pages of libraries that something else on this machine has open
too, such as the controller or the tests of others, count only in part in PSS; `alone_mb` counts each file's pages once
and whole, as on a device where nobody else has them.

CPU is that of /proc/PID/stat, that of children which have ended included: the Podman service that is started on demand
is reaped by the agent or by the device's first process. On a machine that is shared, waking alone is charged: the
control is a process beside it that does nothing but wake once a second.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench._backends import BACKENDS, Backend
from tests.support.site import Site

REST = 60.0
WATCHED = 120.0
TICKS = os.sysconf("SC_CLK_TCK")
FIRST = 1
# How the workload's command line ends.
WORKLOAD = "server.py"
# Run on the device, where only its own processes are seen.
LOOK = r"""
import collections, json, os

def look(pid):
    words = open(f"/proc/{pid}/cmdline").read().split("\0")[:-1]
    ticks = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:15]
    private, shared, pss, key = 0, collections.Counter(), 0, ""
    for line in open(f"/proc/{pid}/smaps"):
        name, *rest = line.split()
        if not name.endswith(":"):
            key = " ".join(rest[1:4])
        elif name == "Pss:":
            pss += int(rest[0])
        elif name.startswith("Private_") and name != "Private_Hugetlb:":
            private += int(rest[0])
        elif name.startswith("Shared_") and name != "Shared_Hugetlb:":
            shared[key] += int(rest[0])
    return [words, [int(tick) for tick in ticks], pss, private, shared]

found = {}
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) != os.getpid():
        try:
            found[pid] = look(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Process:
    """Seconds of CPU, its own and that of children which have ended; memory in MB (10^6 bytes), `shared` by what is
    mapped."""

    words: tuple[str, ...]
    own: float
    children: float
    pss: float
    private: float
    shared: dict[str, float]


def main() -> str:
    return "\n".join(asyncio.run(_measure(backend)) for backend in BACKENDS)


async def _measure(backend: Backend) -> str:
    async with backend.site() as site:
        deployment = await site.deploy(backend.spec("idle").replace("500ms", "10s"))
        await site.reaches(deployment, "READY")
        program = "import time\nwhile True: time.sleep(1)"
        control = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        try:
            await asyncio.sleep(REST)
            before, idle, began = await _look(site), _own_cpu(control.pid), time.monotonic()
            await asyncio.sleep(WATCHED)
            after, waking, seconds = await _look(site), _own_cpu(control.pid), time.monotonic() - began
        finally:
            control.kill()
            await control.wait()
    ours = {pid: process for pid, process in after.items() if pid != FIRST and process.words[-1:] != (WORKLOAD,)}
    for pid, process in sorted(ours.items()):
        print(f"{backend.name}: {pid} {process.pss:.1f} MB PSS: {' '.join(process.words)[:100]}", flush=True)
    (agent,) = (process for process in ours.values() if backend.program in process.words)
    own = sum(process.own - _before(pid, before).own for pid, process in ours.items())
    ended = sum(after[pid].children - _before(pid, before).children for pid in (FIRST, *ours))
    return (
        f"agent_footprint: backend={backend.name} value={sum(one.pss for one in ours.values()):.1f} unit=MB_PSS "
        f"uss_mb={sum(one.private for one in ours.values()):.1f} alone_mb={_alone(ours.values()):.1f} "
        f"agent_mb={agent.pss:.1f} processes={len(ours)} "
        f"cpu_percent={(own + ended) / seconds * 100:.3f} ended_children_cpu_percent={ended / seconds * 100:.3f} "
        f"control_cpu_percent={(waking - idle) / seconds * 100:.3f} seconds={seconds:.0f} rounds=1 "
        "(one workload, idle)"
    )


async def _look(site: Site) -> dict[int, Process]:
    """All processes of the device."""
    found = json.loads(await site.device.run(sys.executable, "-I", "-c", LOOK))
    return {int(pid): _process(*fields) for pid, fields in found.items()}


def _process(words: list[str], ticks: list[int], pss: int, private: int, shared: dict[str, int]) -> Process:
    user, system, children_user, children_system = (count / TICKS for count in ticks)
    return Process(
        tuple(words),
        user + system,
        children_user + children_system,
        _mb(pss),
        _mb(private),
        {mapped: _mb(kib) for mapped, kib in shared.items()},
    )


def _before(pid: int, processes: dict[int, Process]) -> Process:
    """A process that was not there had used nothing."""
    return processes.get(pid, Process((), 0, 0, 0, 0, {}))


def _alone(processes: Collection[Process]) -> float:
    shared: dict[str, float] = {}
    for process in processes:
        for mapped, size in process.shared.items():
            shared[mapped] = max(size, shared.get(mapped, 0))
    return sum(process.private for process in processes) + sum(shared.values())


def _own_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:13]) / TICKS


def _mb(kib: int) -> float:
    return kib * 1024 / 1e6
