"""Which instances are asked whether they are ready, and what becomes of the answers."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import structlog

from edge_agent.runtime.backend import DeployBackend, Handle, Observed
from edge_agent.runtime.case import Case
from edge_agent.runtime.checks import Answer
from edge_agent.runtime.clock import Clock
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.memory import Memory
from edge_agent.runtime.model import Desired, Workload
from edge_agent.runtime.plan import by_deployment
from edge_agent.runtime.prober import probe, watch_over
from edge_agent.runtime.record import Health, checked, is_lifeless, lived, watched

log = structlog.get_logger()


class Probers:
    """Tasks for each instance that serves, or is to serve: one asks whether it is ready, one whether it lives.
    `changed` is called with the deployment's id when its checks say something new."""

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
            # During an update two of them: the one that serves, and the one that is to.
            for workload in (case.wish, case.other):
                if workload is not None and (alive := case.alive(workload)):
                    yield workload, alive[0]

    def _take_over(self, instance: Observed) -> None:
        reach("adopt.seen")
        key = instance.deployment_id
        self._memory.put(key, watched(self._memory.get(key), instance, self._clock()))
        reach("adopt.noted")
        log.info("instance_adopted", deployment=key, revision=instance.revision)

    async def _ask(self, workload: Workload, instance: Observed) -> None:
        asking = [probe(self._backend, workload, instance, lambda answer: self._answered(workload, instance, answer))]
        if workload.liveness is not None:
            asking.append(
                watch_over(
                    self._backend, workload.liveness, instance, lambda: self._memory.get(instance.deployment_id),
                    lambda answer: self._lived(workload, instance, answer),
                )
            )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as group:
                for each in asking:
                    group.create_task(each)
        except* Exception:
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
        if _claims(before.health_of(instance.handle)) != _claims(health):
            self._changed(key)
        return health

    def _lived(self, workload: Workload, instance: Observed, answer: Answer) -> bool:
        """Whether the instance is to be asked on."""
        key = instance.deployment_id
        after = lived(self._memory.get(key), instance.handle, answer.ok, answer.said)
        self._memory.put(key, after)
        health = after.health_of(instance.handle)
        lifeless = health is not None and is_lifeless(health, workload)
        if lifeless:
            self._changed(key)
        return health is not None and not lifeless


def _claims(health: Health | None) -> tuple[object, ...]:
    """What of an instance's health others are told."""
    return (health.answered, health.ready, health.said) if health else ()
