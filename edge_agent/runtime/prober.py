"""Asking a running instance again and again, at the pace that its state calls for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from edge_agent.runtime.backend import BackendUnavailable, DeployBackend, ExecResult, Observed
from edge_agent.runtime.checks import Answer, ask, shortened
from edge_agent.runtime.model import Check, CommandProbe, InferenceProbe, Workload
from edge_agent.runtime.record import Health, Record

# While it starts: first after 5 ms, then slower and slower, so that what has become ready is noticed within a twentieth
# of the time that it took, and within half a second.
FIRST_PAUSE = 0.005
GROWTH = 1.05
SLOWEST_PAUSE = 0.5
# A command costs a process in the instance, a question to a model the model's time: far more than a connection.
FIRST_PAUSES = {CommandProbe: 0.25, InferenceProbe: 0.02}
# An instance that was ready and is not is asked so often.
LOST_PAUSE = 1.0

# Takes an answer, and tells what the checks have said so far; None ends the asking.
Report = Callable[[Answer], Health | None]


async def probe(backend: DeployBackend, workload: Workload, observed: Observed, report: Report) -> None:
    """Asks until `report` answers None or the task is cancelled."""

    pause = FIRST_PAUSES.get(type(workload.readiness.probe), FIRST_PAUSE)
    while True:
        try:
            answer = await _ask(backend, workload.readiness, observed)
        except BackendUnavailable as error:
            # While nobody can ask, nobody can say that it answers.
            answer = Answer(False, shortened(f"its check cannot be run: {error.message}"))
        health = report(answer)
        if health is None:
            return
        await asyncio.sleep(next_pause(workload.readiness, health, pause))
        if not health.ready:
            pause = min(SLOWEST_PAUSE, pause * GROWTH)


async def watch_over(
    backend: DeployBackend,
    liveness: Check,
    observed: Observed,
    record: Callable[[], Record],
    report: Callable[[Answer], bool],
) -> None:
    """Asks the liveness check of an instance that has been ready, until `report` answers False or the task is
    cancelled. A backend that cannot ask is no sign of death."""

    while True:
        health = record().health_of(observed.handle)
        if health is not None and health.ever_ready:
            with suppress(BackendUnavailable):
                if not report(await _ask(backend, liveness, observed)):
                    return
        await asyncio.sleep(liveness.period)


async def _ask(backend: DeployBackend, check: Check, observed: Observed) -> Answer:
    async def execute(command: tuple[str, ...], timeout: float) -> ExecResult:
        return await backend.exec(observed.handle, command, timeout)

    async def listens(port: str) -> bool | None:
        return await backend.listens(observed.handle, port)

    return await ask(check, observed, execute, listens)


def next_pause(check: Check, health: Health, pause: float) -> float:
    """Seconds until the next check: the check's period once ready, far less before."""
    if health.ready:
        return check.period
    return min(LOST_PAUSE, check.period) if health.ever_ready else pause
