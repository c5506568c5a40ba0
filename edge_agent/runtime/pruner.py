"""Removing artifacts that are needed no more, when the device has nothing better to do."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from edge_agent.runtime.backend import BackendError, DeployBackend, Observed
from edge_agent.runtime.clock import Clock
from edge_agent.runtime.model import Desired
from edge_agent.runtime.record import Record

log = structlog.get_logger()


def needed(desired: Desired, observed: Iterable[Observed], records: Mapping[str, Record]) -> frozenset[str]:
    """Digests that stay: what is wished for (stopped or not), what an instance has, what can be returned to."""
    keep = {digest for workload in desired.workloads for digest in workload.digests}
    keep |= {instance.artifact_digest for instance in observed}
    for record in records.values():
        returned_to = (known for known in (record.fallback, record.previous) if known is not None)
        keep |= {digest for known in returned_to for digest in known.digests}
    return frozenset(keep - {""})


class Pruner:
    """Prunes once after `quiet` seconds without a step, at most every `interval`, and only when something changed; at
    once where the disk is nearly full."""

    def __init__(
        self, backend: DeployBackend, clock: Clock, interval: float, quiet: float, done: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._interval = interval
        self._quiet = quiet
        self._done = done
        self._task: asyncio.Task[None] | None = None
        self._keep: frozenset[str] | None = None
        self._not_before = clock().monotonic + quiet
        # The same where the disk is nearly full; later than now only after a failure.
        self._not_before_urgent = 0.0
        self._urgent = False
        self._pending = False

    def disturb(self) -> None:
        """Something was done: the device is not quiet."""
        self._not_before = max(self._not_before, self._clock().monotonic + self._quiet)

    def might_take(self, digests: frozenset[str]) -> bool:
        """Whether something of what is fetched now could be pruned under way."""
        return self._task is not None and (self._keep is None or not digests <= self._keep)

    def moments(self) -> Sequence[float]:
        return [self._due] if self._pending else []

    @property
    def _due(self) -> float:
        return self._not_before_urgent if self._urgent else self._not_before

    def hurry(self, urgent: bool) -> None:
        """The disk is nearly full, or not any more. What was pruned before may have left something since."""
        if urgent and not self._urgent:
            self._keep = None
        self._urgent = urgent

    def consider(
        self, idle: bool, desired: Desired, observed: Iterable[Observed], records: Mapping[str, Record]
    ) -> None:
        """Begins to prune if it is time to. Not while any step is under way: `idle` says so."""
        if self._task is not None:
            return
        keep = needed(desired, observed, records)
        self._pending = idle and keep != self._keep
        if self._pending and self._clock().monotonic >= self._due:
            self._pending = False
            self._keep = keep
            self._task = asyncio.create_task(self._prune(keep))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _prune(self, keep: frozenset[str]) -> None:
        try:
            await self._backend.prune(keep)
            log.info("pruned", kept=len(keep))
        except BackendError as error:
            log.warning("prune_failed", reason=error.reason, error=error.message)
            self._keep = None
            self._not_before_urgent = self._clock().monotonic + self._interval
        except Exception:
            # Tidying up may fail; what runs goes on.
            log.exception("prune_crashed")
        finally:
            self._task = None
            self._not_before = self._clock().monotonic + self._interval
            self._done()
