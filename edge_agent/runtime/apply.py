"""Doing what was planned: for each type of step one coroutine over the backend's verbs."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import structlog

from edge_agent.runtime.backend import (
    ArtifactDamaged,
    BackendError,
    BackendUnavailable,
    DeployBackend,
    Handle,
    LogQuery,
    Observed,
    Progress,
)
from edge_agent.runtime.clock import Clock
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.kept_logs import KEPT_LINES, KeptLogs
from edge_agent.runtime.model import Workload
from edge_agent.runtime.plan import Account, Forget, GiveUp, Prepare, Recover, Remove, Start, Step, Stop
from edge_agent.runtime.record import (
    Failure,
    Record,
    Stage,
    ended,
    failed,
    lifeless,
    overdue,
    prepared,
    recovered,
    retired,
    started,
    unprepared,
)

log = structlog.get_logger()

LAST_LINES = 20
LAST_LINES_BYTES = 4096
LAST_LINES_TIMEOUT = 1.0
KEEP_LOG_TIMEOUT = 10.0


class Commit(Protocol):
    """Changes the record of a deployment; with None as the outcome it is forgotten. Not `durable`: it is soon."""

    def __call__(
        self, deployment_id: str, change: Callable[[Record], Record | None], *, durable: bool = True
    ) -> None: ...


class Executor:
    """Runs one step at a time for each lane of a deployment, as its caller sees to.

    What a step brought about is in the record when `execute` returns. It raises BackendUnavailable where nothing can
    be concluded, and BackendError where stopping or removing did not succeed.
    """

    def __init__(
        self,
        backend: DeployBackend,
        commit: Commit,
        progress: Callable[[Workload, Progress], None],
        clock: Clock,
        jitter: Callable[[], float],
        kept_logs: KeptLogs,
    ) -> None:
        self._backend = backend
        self._commit = commit
        self._progress = progress
        self._clock = clock
        self._jitter = jitter
        self._kept_logs = kept_logs
        self._table: dict[type[Step], Callable[[Any], Coroutine[Any, Any, None]]] = {
            Prepare: self._prepare,
            Start: self._start,
            Stop: self._stop,
            GiveUp: self._give_up,
            Account: self._account,
            Remove: self._remove,
            Recover: self._recover,
            Forget: self._forget,
        }

    async def execute(self, step: Step) -> None:
        kind = type(step).__name__.lower()
        reach(f"{kind}.begin")
        await self._table[type(step)](step)
        reach(f"{kind}.done")

    async def _prepare(self, step: Prepare) -> None:
        try:
            await self._backend.prepare(step.workload, lambda progress: self._progress(step.workload, progress))
        except BackendUnavailable:
            raise
        except BackendError as error:
            self._failed(step.workload, Stage.FETCH, error)
        except Exception as error:  # noqa: BLE001 - logged with its traceback there
            self._crashed(step.workload, Stage.FETCH, error)
        else:
            reach("prepare.fetched")
            # Who forgets it looks again what is here: the start does not wait for a disk.
            self._commit(step.deployment_id, lambda record: prepared(record, step.workload), durable=False)

    async def _start(self, step: Start) -> None:
        try:
            handle = await self._backend.start(step.workload)
        except BackendUnavailable:
            raise
        except BackendError as error:
            if error.reason == "NotPrepared" or isinstance(error, ArtifactDamaged):
                self._commit(step.deployment_id, lambda record: unprepared(record, step.workload))
                error = BackendError(error.reason, error.message, retryable=True)
            self._failed(step.workload, Stage.START, error)
        except Exception as error:  # noqa: BLE001 - logged with its traceback there
            self._crashed(step.workload, Stage.START, error)
        else:
            reach("start.started")
            log.info("instance_started", deployment=step.deployment_id, revision=step.workload.revision)
            self._commit(step.deployment_id, lambda record: started(record, step.workload, handle, self._clock()))

    async def _stop(self, step: Stop) -> None:
        # Noted first: after a crash of this agent in between, the end must not pass for a failure.
        observed = step.observed
        self._commit(step.deployment_id, lambda record: _retired(record, observed))
        reach("stop.noted")
        await self._backend.stop(observed.handle, step.grace)
        reach("stop.stopped")
        log.info("instance_stopped", deployment=step.deployment_id, revision=observed.revision)

    async def _give_up(self, step: GiveUp) -> None:
        handle, jitter = step.observed.handle, self._jitter()
        lines = await self._last_lines(step.deployment_id, handle)
        self._commit(
            step.deployment_id,
            lambda record: (lifeless if step.lifeless else overdue)(
                record, step.workload, handle, lines, self._clock(), jitter
            ),
        )
        reach("giveup.noted")
        await self._backend.stop(handle, step.workload.stop_grace)

    async def _account(self, step: Account) -> None:
        lines, jitter = await self._last_lines(step.deployment_id, step.observed.handle), self._jitter()
        self._commit(
            step.deployment_id,
            lambda record: ended(record, step.workload, step.observed, lines, self._clock(), jitter),
        )

    async def _remove(self, step: Remove) -> None:
        if step.observed.started_at:
            await self._keep_log(step)
        # Where nothing is remembered, as after a lost database: what is kept for the deployment is to go with it.
        self._commit(step.deployment_id, lambda record: record)
        await self._backend.remove(step.observed.handle)

    async def _keep_log(self, step: Remove) -> None:
        """The last of it, for who asks what the instance said; as far as it can be had soon."""
        query = LogQuery(tail=KEPT_LINES)
        with _as_far_as_it_goes(step.deployment_id):
            async with asyncio.timeout(KEEP_LOG_TIMEOUT):
                await self._kept_logs.keep(step.deployment_id, self._backend.logs(step.observed.handle, query))

    async def _recover(self, step: Recover) -> None:
        self._commit(step.deployment_id, lambda record: recovered(record, step.revision))

    async def _forget(self, step: Forget) -> None:
        if step.gone:
            self._kept_logs.forget(step.deployment_id)
            await self._backend.forget(step.deployment_id)
            reach("forget.cleared")
        self._commit(step.deployment_id, lambda record: None if step.gone else Record(step.deployment_id))

    def _failed(self, workload: Workload, stage: Stage, error: BackendError) -> None:
        failure = Failure(stage, error.reason, error.message, final=not error.retryable)
        jitter = self._jitter()
        self._commit(workload.deployment_id, lambda record: failed(record, workload, failure, self._clock(), jitter))

    def _crashed(self, workload: Workload, stage: Stage, error: Exception) -> None:
        # A fault of ours, told like any other failure; the traceback is for those who can mend it.
        log.exception("step_crashed", stage=str(stage), deployment=workload.deployment_id, revision=workload.revision)
        told = BackendError("AgentError", f"the agent failed: {type(error).__name__}: {error}", retryable=True)
        self._failed(workload, stage, told)

    async def _last_lines(self, deployment_id: str, handle: Handle) -> tuple[str, ...]:
        """The last output of an instance, as far as it can be had at once."""
        lines: list[str] = []
        with _as_far_as_it_goes(deployment_id):
            async with asyncio.timeout(LAST_LINES_TIMEOUT):
                async for line in self._backend.logs(handle, LogQuery(tail=LAST_LINES)):
                    lines.append(line.text)
        return newest_lines(lines)


@contextmanager
def _as_far_as_it_goes(deployment_id: str) -> Iterator[None]:
    """Reading a log in this block holds up nothing: what an instance said is worth less than what is to be done."""
    try:
        yield
    except (BackendError, TimeoutError):
        log.debug("log_not_read", deployment=deployment_id)
    except Exception as error:  # noqa: BLE001 - a log can be spoiled in more ways than anybody knows
        log.warning("log_not_read", deployment=deployment_id, error=f"{type(error).__name__}: {error}")


def _retired(record: Record, observed: Observed) -> Record | None:
    # Where nothing is remembered, nothing could be mistaken.
    return retired(record, observed.revision, observed.handle) if record.courses else None


def newest_lines(lines: list[str]) -> tuple[str, ...]:
    """The last of these lines that a status has room for: 20 lines and 4 KiB, the first of them cut if need be."""
    room = LAST_LINES_BYTES
    kept: list[str] = []
    for line in lines[: -LAST_LINES - 1 : -1]:
        text = line.encode(errors="replace")
        if len(text) > room:
            cut = text[len(text) - room :].decode(errors="ignore")
            kept += [cut] if cut else []
            break
        room -= len(text)
        kept.append(line)
    return tuple(reversed(kept))
