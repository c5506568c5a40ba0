"""One try at one target: from its turn to its outcome, which is stored whatever happens."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from controller.builds.cache_key import cache_key
from controller.builds.jobs import target_job
from controller.builds.logs import BuildLogs
from controller.builds.masking import Mask
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import (
    ArtifactKind,
    Build,
    BuildFailed,
    BuildResult,
    BuildState,
    BuildTarget,
    OnLine,
    OnState,
    TargetJob,
)
from controller.builds.order import Waiting
from controller.builds.recording import CANCELLED_TEXT, cancelled, existing, existing_target, record
from controller.builds.reuse import Reuse, reuse_line
from controller.builds.secrets import SecretBox
from controller.builds.targets import TargetProfile
from controller.spec.loader import load_spec
from controller.store import Store, Transaction

log = structlog.get_logger()
RETRY_FIRST = 2.0
RETRY_LONGEST = 60.0


class Builder(Protocol):
    """What the queue needs of whoever builds."""

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        """Whether a build for this profile could begin now. Asked on the event loop; never blocks. The queue lets one
        build after another begin: it asks again only when the last one has come to its first await in `build`."""
        ...

    def on_free(self, listener: Callable[[], None]) -> None:
        """From now on `listener` is called on the event loop whenever `takes` may have come to answer yes: a slot is
        free, a host is back. Hints: calls too many are harmless."""
        ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Builds and pushes. Raises BuildFailed, which leaves nothing behind; a cancel ends it at any moment, and when
        it has ended nothing of it runs or lies around. It counts for `takes` from its first step on."""
        ...

    async def recover(self) -> None:
        """Ends and removes what a killed controller left. Once, before the first build."""
        ...


@dataclass(frozen=True)
class Desk:
    """What attempts work with. `registry` is host:port; `retry_seconds` how long after its first try a target whose
    failure may pass is tried again."""

    store: Store
    builder: Builder
    logs: BuildLogs
    reuse: Reuse
    secrets: SecretBox
    materials: MaterialsStore
    profiles: Mapping[str, TargetProfile]
    registry: str
    retry_seconds: float


class Cancelled(Exception):
    """A user's wish ended the try."""


class Attempt:
    """`on_entered` is called once the builder counts this try, or when it will never be built."""

    def __init__(self, desk: Desk, waiting: Waiting, on_entered: Callable[[], None]) -> None:
        self.waiting = waiting
        self._desk = desk
        self._on_entered = on_entered
        self._entered = False
        self._wish_to_end = asyncio.Event()
        # Set while the builder works: then a cancel of the task reaches the builder and nothing else.
        self._building: asyncio.Task[None] | None = None

    @property
    def entered(self) -> bool:
        return self._entered

    def end(self) -> None:
        """The user wishes it to end. Once nothing of it runs any more the target is CANCELLED, unless it was done."""
        if not self._wish_to_end.is_set():
            self._wish_to_end.set()
            if self._building is not None:
                self._building.cancel()

    async def run(self) -> None:
        """Never raises because of the build; raises what hinders its outcome from being stored."""
        try:
            await self._run()
        finally:
            self._enter()

    async def _run(self) -> None:
        build_id, key = self.waiting.name
        claimed = await self._desk.store.transact(lambda tx: _claim(tx, build_id, key))
        if claimed is None:
            return
        build, target = claimed
        progress = _Progress(self._desk.store, build_id, target)
        try:
            await self._see_through(build, target, progress)
        finally:
            await progress.abandon()

    async def _see_through(self, build: Build, target: BuildTarget, progress: "_Progress") -> None:
        bound = log.bind(build=build.id, target=target.key)
        bound.info("build target begins", attempt=target.attempts)
        try:
            outcome = await self._outcome(build, target, progress)
        except BuildFailed as failure:
            outcome = _failed(progress.target, failure, self._desk.retry_seconds)
        except Cancelled:
            outcome = cancelled(progress.target)
        except Exception as error:  # noqa: BLE001 - logged; a broken target must not stop the queue
            bound.exception("building broke")
            message = f"the controller failed while building: {error!r}; see its log"
            outcome = _failed(progress.target, BuildFailed("InternalError", message), 0)
        await progress.finish()
        # Here and not in the transaction: logs belong to the event loop.
        self._log_outcome(build.id, outcome)
        await self._desk.store.transact(lambda tx: store_outcome(tx, build.id, outcome))
        bound.info("build target ends", state=outcome.state, reason=outcome.reason)

    async def _outcome(self, build: Build, target: BuildTarget, progress: "_Progress") -> BuildTarget:
        sealed = await self._desk.store.transact(lambda tx: tx.builds.secrets(build.id))
        # A large spec takes a while to be read.
        job, timeout, name = await asyncio.to_thread(self._job, build, target, sealed)
        progress.target = target = replace(target, cache_key=name)
        if not build.no_cache and (ready := (await self._desk.reuse.answer({target.key: target})).get(target.key)):
            self._desk.logs.append(build.id, target.key, "system", reuse_line(ready))
            return ready
        result = await self._build(job, timeout, progress)
        await asyncio.to_thread(self._desk.materials.save, build.id, target.key, result.sbom)
        return _succeeded(progress, result)

    async def _build(self, job: TargetJob, timeout: float, progress: "_Progress") -> BuildResult:
        """The builder's result. Raises BuildFailed; Cancelled where that was the user's wish."""

        def on_line(stream: str, text: str) -> None:
            self._desk.logs.append(job.build_id, job.target, stream, text)

        if self._wish_to_end.is_set():
            raise Cancelled
        task = asyncio.current_task()
        assert task is not None
        self._building = task
        # The builder comes to its first await before this callback does.
        asyncio.get_running_loop().call_soon(self._enter)
        try:
            async with asyncio.timeout(None) as limit:

                def on_state(state: BuildState) -> None:
                    if limit.when() is None:
                        limit.reschedule(asyncio.get_running_loop().time() + timeout)
                    progress.on_state(state)

                return await self._desk.builder.build(job, on_line, on_state)
        except BuildFailed as failure:
            # What a registry or a tool answers may repeat what it was given.
            raise Mask(job.secrets.values()).failure(failure) from None
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"not done within {timeout:g} s; raise build.timeout, or make the build shorter"
            raise BuildFailed("TimedOut", text) from None
        except asyncio.CancelledError:
            if task.cancelling() == 0:
                raise RuntimeError("the builder was cancelled, and nobody asked for it") from None
            # A cancel of the whole queue, which may have come as well, goes on.
            if not self._wish_to_end.is_set() or task.uncancel() > 0:
                raise
            raise Cancelled from None
        finally:
            self._building = None

    def _job(self, build: Build, target: BuildTarget, sealed: bytes | None) -> tuple[TargetJob, float, str]:
        """The job, its time-out in seconds, and its cache key ("" where its artifact is for nobody else)."""
        spec = load_spec(build.spec)
        job = target_job(build, target, spec, self._desk.registry, self._desk.secrets.open(sealed))
        profile = self._desk.profiles.get(target.profile)
        name = cache_key(job, profile, self._desk.secrets) if profile is not None and spec.build.push else ""
        return job, spec.build.timeout.total_seconds(), name

    def _enter(self) -> None:
        if not self._entered:
            self._entered = True
            self._on_entered()

    def _log_outcome(self, build_id: str, outcome: BuildTarget) -> None:
        text = outcome.state.lower()
        if outcome.state is BuildState.CANCELLED:
            text = CANCELLED_TEXT
        elif outcome.artifact is not None:
            text = f"pushed {outcome.artifact.repository}@{outcome.artifact.digest}"
        elif outcome.reason:
            again = "" if outcome.done else "; tried again by itself"
            text = f"{outcome.reason}: {outcome.message}{again}"
        if not outcome.cached_from:
            self._desk.logs.append(build_id, outcome.key, "system", text)


class _Progress:
    """Stores the states that a builder passes through, in order, without making it wait."""

    def __init__(self, store: Store, build_id: str, target: BuildTarget) -> None:
        self.target = target
        self._store = store
        self._build_id = build_id
        self._last: asyncio.Task[None] | None = None

    def on_state(self, state: BuildState) -> None:
        if state is not self.target.state:
            self.target = replace(self.target, state=state)
            self._last = asyncio.create_task(self._record(self._last, self.target))

    async def finish(self) -> None:
        """All states are stored."""
        if self._last is not None:
            await self._last

    async def abandon(self) -> None:
        """Nothing is stored any more. Harmless after `finish`."""
        if self._last is not None:
            self._last.cancel()
            await asyncio.gather(self._last, return_exceptions=True)

    async def _record(self, before: asyncio.Task[None] | None, target: BuildTarget) -> None:
        if before is not None:
            await before
        await self._store.transact(lambda tx: record(tx, self._build_id, target))


def _claim(tx: Transaction, build_id: str, key: str) -> tuple[Build, BuildTarget] | None:
    """The target, begun from now on; None where it does not wait any more."""
    build, target = existing_target(tx, build_id, key)
    if target.state is not BuildState.QUEUED or build.cancel_requested:
        return None
    now = time.time()
    target = replace(
        target, state=BuildState.PREPARING, reason="", message="", failed_step="", last_lines=(), next_try=0.0,
        attempts=target.attempts + 1, started=target.started or now,
    )  # fmt: skip
    tx.queue.serve(build.user_id, now)
    return record(tx, build_id, target), target


def store_outcome(tx: Transaction, build_id: str, outcome: BuildTarget) -> None:
    """The end of a try. What would be tried again is cancelled where somebody asked for that meanwhile."""
    if outcome.done:
        outcome = replace(outcome, ended=time.time())
    elif existing(tx, build_id).cancel_requested:
        outcome = cancelled(outcome)
    record(tx, build_id, outcome)


def _succeeded(progress: _Progress, result: BuildResult) -> BuildTarget:
    made = replace(progress.target, artifact=result.artifact, notes=result.notes, host=result.host)
    return replace(made, state=BuildState.SUCCEEDED, reason="", message="")


def _failed(target: BuildTarget, failure: BuildFailed, retry_seconds: float) -> BuildTarget:
    """Tried again later, where that may help and was not tried for too long."""
    failed = replace(
        target, reason=failure.reason, message=failure.message, failed_step=failure.step, last_lines=failure.last_lines
    )
    now = time.time()
    if not failure.retryable:
        return replace(failed, state=BuildState.FAILED)
    if now - target.started >= retry_seconds:
        text = f"{failure.message} (given up after {target.attempts} tries)"
        return replace(failed, state=BuildState.FAILED, message=text)
    delay = min(RETRY_LONGEST, RETRY_FIRST * 2 ** min(target.attempts - 1, 10))
    return replace(failed, state=BuildState.QUEUED, next_try=now + delay)
