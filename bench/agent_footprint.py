"""Memory and CPU of an idle agent with one ready workload (checked each 10 s), over two minutes after one of rest.

PSS and USS from /proc/PID/smaps_rollup, CPU from /proc/PID/stat; the Podman service that the agent starts on demand
counts by its own CPU time, which the agent inherits when it reaps it. On a machine that is shared, waking alone is
charged: the control is a process beside it that does nothing but wake once a second.
"""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.site import Site, running_site, spec_text

REST = 60.0
WATCHED = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU: of the process, and of its children that have ended."""

    own: float
    children: float


def main() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> str:
    async with running_site(folder) as site:
        deployment = await site.deploy(spec_text("idle").replace("500ms", "10s"))
        await site.reaches(deployment, "READY")
        pid = _agent_pid(site)
        program = "import time\nwhile True: time.sleep(1)"
        control = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        try:
            await asyncio.sleep(REST)
            before, idle, began = _cpu(pid), _cpu(control.pid), time.monotonic()
            await asyncio.sleep(WATCHED)
            after, waking, seconds = _cpu(pid), _cpu(control.pid), time.monotonic() - began
        finally:
            control.kill()
            await control.wait()
        pss, uss = _memory(pid)
    own = (after.own - before.own) / seconds * 100
    nothing = (waking.own - idle.own) / seconds * 100
    children = (after.children - before.children) / seconds * 100
    return (
        f"agent_footprint: value={pss:.1f} unit=MB_PSS uss_mb={uss:.1f} cpu_percent={own:.3f} "
        f"podman_service_cpu_percent={children:.3f} control_cpu_percent={nothing:.3f} "
        f"seconds={seconds:.0f} rounds=1 (one workload, idle)"
    )


def _agent_pid(site: Site) -> int:
    """The agent's process, as this machine numbers it."""
    state = str(site.folder / "agent")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "edge_agent.main" in words and state in words and "nsenter" not in words[0]:
                return int(entry.name)
    raise RuntimeError("the agent does not run")


def _cpu(pid: int) -> Cpu:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, child_user, child_system = (int(field) / TICKS for field in fields[11:15])
    return Cpu(user + system, child_user + child_system)


def _memory(pid: int) -> tuple[float, float]:
    """PSS and USS in MB (10^6 bytes)."""
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kib = line.split()[:2]
        values[name.rstrip(":")] = int(kib) * 1024 / 1e6
    return values["Pss"], values["Private_Clean"] + values["Private_Dirty"]
