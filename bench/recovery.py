"""How long it takes from the start of an agent whose predecessor was killed (SIGKILL) until it has adopted all that
runs: five ready workloads, for each backend. Medians.

Read from the agent's own log, which names each instance that it takes over, at the moment at which the line is there.
The start of Python is in it; the pause that systemd makes before (RestartSec=) is not. Each round then checks that all
workloads are READY by what the agent tells the controller, that none was restarted, and that the processes are the same
as before.
"""

import asyncio
import statistics
import time
from pathlib import Path

from bench._backends import AS_SERVICE, BACKENDS, Backend
from longshore.v1 import deployment_pb2, device_pb2
from tests.support.site import Site, status_of

WORKLOADS = 5
ROUNDS = 10
LONGEST = 60.0
STARTED, ADOPTED = "event=agent_started", "event=instance_adopted"
# Number and start of each of the workloads' processes, as the device's kernel tells.
PROCESSES = "for p in $(pgrep -f '^[^ ]*python[^ ]* server.py$'); do echo $p $(cut -d' ' -f22 /proc/$p/stat); done"


def main() -> str:
    return "\n".join(asyncio.run(_measure(backend)) for backend in BACKENDS)


async def _measure(backend: Backend) -> str:
    async with backend.site() as site:
        deployments = [await site.deploy(backend.spec(f"service-{number}")) for number in range(WORKLOADS)]
        for deployment in deployments:
            await site.reaches(deployment, "READY")
        before = await _processes(site)
        started, adopted = [], []
        for number in range(ROUNDS):
            times = await _recover(site)
            started.append(times[STARTED])
            adopted.append(times[ADOPTED])
            await _check(site, deployments, before)
            row = f"started {started[-1] * 1000:.0f} ms, adopted {adopted[-1] * 1000:.0f} ms"
            print(f"round {number}: {row}", flush=True)
    return (
        f"recovery: backend={backend.name} adopted_ms={statistics.median(adopted) * 1000:.0f} "
        f"most_ms={max(adopted) * 1000:.0f} agent_started_ms={statistics.median(started) * 1000:.0f} "
        f"workloads={WORKLOADS} restarted=0 rounds={ROUNDS} (medians; from the start of its successor)"
    )


async def _recover(site: Site) -> dict[str, float]:
    """Seconds until the agent has started, and until it has adopted all."""
    await site.stop_agent(kill=True)
    await site.seen_device(lambda device: device.presence == device_pb2.DEVICE_PRESENCE_OFFLINE)
    log = site.folder / "agent.log"
    size = log.stat().st_size
    began = time.monotonic()
    await site.start_agent(AS_SERVICE)
    return {event: await _seen(log, size, event, count, began) for event, count in ((STARTED, 1), (ADOPTED, WORKLOADS))}


async def _seen(log: Path, start: int, event: str, count: int, began: float) -> float:
    """Seconds until so many of these events are in the log, from this place on."""
    with log.open() as file:
        while True:
            file.seek(start)
            if file.read().count(event) >= count:
                return time.monotonic() - began
            if time.monotonic() > began + LONGEST:
                raise RuntimeError(f"not {count} times within {LONGEST} s: {event}")
            await asyncio.sleep(0.002)


async def _check(site: Site, deployments: list[deployment_pb2.Deployment], before: set[str]) -> None:
    await site.seen_device(lambda device: device.presence == device_pb2.DEVICE_PRESENCE_ONLINE)
    for deployment in deployments:
        answer = await site.reaches(deployment, "READY")
        if status_of(answer).restarts:
            raise RuntimeError(f"{deployment.name} was restarted: {answer}")
    if (after := await _processes(site)) != before:
        raise RuntimeError(f"other processes run than before: {sorted(before)}, now {sorted(after)}")


async def _processes(site: Site) -> set[str]:
    found = set((await site.device.run("sh", "-c", PROCESSES)).splitlines())
    if len(found) != WORKLOADS:
        raise RuntimeError(f"{len(found)} processes run in place of {WORKLOADS}: {sorted(found)}")
    return found
