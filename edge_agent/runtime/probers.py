"""Which instances are asked whether they are ready, and what becomes of the answers."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import structlog

from edge_agent.runtime.backend import DeployBackend, Handle, Observed
from edge_agent.runtime.case import Case
from edge_agent.runtime.checks import Answer
from edge_agent.runtime.clock import Clock
from edge_agent.runtime.memory import Memory
from edge_agent.runtime.model import Desired, Workload
from edge_agent.runtime.plan import by_deployment
from edge_agent.runtime.prober import probe
from edge_agent.runtime.record import Health, checked, watched

log = structlog.get_logger()


class Probers:
    """One task for each instance that serves, or is to serve. `changed` is called with the deployment's id when its
    checks say something new."""

    def __init__(self, backend: DeployBackend, memory: Memory, changed: Callable[[str], None], clock: Clock) -> None:
        self._backend = backend
        self._memory = memory
        self._changed = changed
        self._clock = clock
        self._tasks: dict[tuple[Handle, Workload], asyncio.Task[None]] = {}

    def follow(self, desired: Desired, observed: Sequence[Observed]) -> None:
        """Afterwards exactly those instances are asked that matter."""
        serving = {(instance.handle, workload): instance for workload, instance in self._serving(desired, observed)}
        for key in self._tasks.keys() - serving.keys():
            self._tasks.pop(key).cancel()
        for key, instance in serving.items():
            if self._memory.get(instance.deployment_id).health_of(instance.handle) is None:
                self._take_over(instance)
            task = self._tasks.get(key)
            if task is None or task.done():
                self._tasks[key] = asyncio.create_task(self._ask(key[1], instance))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _serving(self, desired: Desired, observed: Sequence[Observed]) -> Iterator[tuple[Workload, Observed]]:
        instances = by_deployment(observed)
        for wish in desired.workloads:
            mine = instances.get(wish.deployment_id, ())
            if not mine or wish.deployment_id in desired.stopped:
                continue
            case = Case(wish, mine, self._memory.get(wish.deployment_id))
            serving = next(((w, i) for i in case.running if (w := case.workload_of(i)) and i in case.alive(w)), None)
            if serving is not None:
                yield serving

    def _take_over(self, instance: Observed) -> None:
        key = instance.deployment_id
        self._memory.put(key, watched(self._memory.get(key), instance, self._clock()))
        log.info("instance_adopted", deployment=key, revision=instance.revision)

    async def _ask(self, workload: Workload, instance: Observed) -> None:
        try:
            await probe(self._backend, workload, instance, lambda answer: self._answered(workload, instance, answer))
        except Exception:
            # The next round begins anew.
            log.exception("check_crashed", deployment=instance.deployment_id)

    def _answered(self, workload: Workload, instance: Observed, answer: Answer) -> Health | None:
        key = instance.deployment_id
        before = self._memory.get(key)
        after = checked(before, workload, instance.handle, answer.ok, answer.said, self._clock())
        health = after.health_of(instance.handle)
        if health is None:
            return None
        self._memory.put(key, after)
        if _claims(before.health) != _claims(health):
            self._changed(key)
        return health


def _claims(health: Health | None) -> tuple[object, ...]:
    """What of an instance's health others are told."""
    return (health.answered, health.ready, health.said) if health else ()
