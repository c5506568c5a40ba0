"""Steps under way: at most one in each lane of a deployment, and none in a lane that has just failed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from edge_agent.runtime.backend import BackendError, BackendUnavailable
from edge_agent.runtime.clock import Clock
from edge_agent.runtime.plan import Lane, Prepare, Step
from edge_agent.runtime.record import backoff

log = structlog.get_logger()

Key = tuple[str, Lane]


@dataclass(frozen=True)
class _UnderWay:
    step: Step
    task: asyncio.Task[None]


@dataclass(frozen=True)
class _Hold:
    until: float
    failures: int


class Lanes:
    """Runs steps by `execute`; `done` is called after each, `unavailable` where the backend did not answer."""

    def __init__(
        self,
        execute: Callable[[Step], Awaitable[None]],
        done: Callable[[Step], None],
        unavailable: Callable[[BackendUnavailable], None],
        clock: Clock,
    ) -> None:
        self._execute = execute
        self._done = done
        self._unavailable = unavailable
        self._clock = clock
        self._under_way: dict[Key, _UnderWay] = {}
        self._holds: dict[Key, _Hold] = {}

    @property
    def idle(self) -> bool:
        return not self._under_way

    def steps(self, deployment_id: str) -> tuple[Step, ...]:
        """The steps under way for one deployment."""
        keys = ((deployment_id, lane) for lane in Lane)
        return tuple(self._under_way[key].step for key in keys if key in self._under_way)

    def begin(self, step: Step) -> bool:
        """Starts a step, unless its lane is busy or held."""
        key = (step.deployment_id, step.lane)
        hold = self._holds.get(key)
        if key in self._under_way or (hold is not None and self._clock().monotonic < hold.until):
            return False
        task = asyncio.create_task(self._run(key, step))
        self._under_way[key] = _UnderWay(step, task)
        # Also where the task is cancelled before it has begun.
        task.add_done_callback(lambda _: self._ended(key, step))
        return True

    def cancel_fetches(self, wanted: Callable[[Prepare], bool]) -> None:
        """Ends fetches of what nobody wants any more."""
        for under_way in self._under_way.values():
            if isinstance(under_way.step, Prepare) and not wanted(under_way.step):
                under_way.task.cancel()

    def moments(self) -> Iterable[float]:
        """When held lanes are free again."""
        return [hold.until for hold in self._holds.values()]

    async def close(self) -> None:
        """Cancels what is under way."""
        tasks = [under_way.task for under_way in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key, step: Step) -> None:
        try:
            await self._execute(step)
        except BackendUnavailable as error:
            self._unavailable(error)
        except BackendError as error:
            log.warning(
                "step_failed", step=type(step).__name__, deployment=key[0], reason=error.reason, error=str(error)
            )
            self._hold(key)
        except Exception:
            # A fault in one step must not end the care for everything else.
            log.exception("step_crashed", step=type(step).__name__, deployment=key[0])
            self._hold(key)
        else:
            self._holds.pop(key, None)

    def _ended(self, key: Key, step: Step) -> None:
        del self._under_way[key]
        self._done(step)

    def _hold(self, key: Key) -> None:
        failures = self._holds[key].failures + 1 if key in self._holds else 1
        self._holds[key] = _Hold(self._clock().monotonic + backoff(failures, 0.5), failures)
