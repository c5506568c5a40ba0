"""Works the queue of build targets off. The queue itself is rows: a killed controller finds it again as it was."""

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import structlog

from controller.builds.logs import BuildLogs
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
from controller.builds.service import target_event
from controller.deployments.assess import reassess
from controller.deployments.placing import place
from controller.spec.loader import load_spec
from controller.store import BuildsQueued, Signal, Store, Transaction

log = structlog.get_logger()
RETRY_FIRST = 2.0
RETRY_LONGEST = 60.0
COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
MARKED = re.compile(r"-x[0-9a-f]{16}\Z")


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


class QueueBroken(Exception):
    """What a build ended with cannot be stored: a restart takes it up again, going on would leave it begun for ever."""


class BuildQueue:
    """Runs at most `parallel` targets at a time. `run()` until cancelled. Raises QueueBroken."""

    def __init__(self, store: Store, builder: Builder, logs: BuildLogs, registry_address: str, parallel: int) -> None:
        self._store = store
        self._builder = builder
        self._logs = logs
        self._registry_address = registry_address
        self._parallel = parallel
        self._wake = asyncio.Event()
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._broken: BaseException | None = None
        store.subscribe(self._heard)

    async def run(self) -> None:
        """Takes unfinished targets up again, then works. When cancelled, running builds are cancelled and stay
        unfinished: the next start takes them up."""
        await self._builder.recover()
        for build_id, key in await self._store.transact(self._requeue_unfinished):
            self._logs.append(build_id, key, "system", "the controller was restarted; this target is built again")
        try:
            while True:
                self._wake.clear()
                if self._broken is not None:
                    raise QueueBroken("the outcome of a build cannot be stored") from self._broken
                await self._start_due()
                await self._wait()
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _start_due(self) -> None:
        free = self._parallel - len(self._running)
        if free <= 0:
            return
        due = await self._store.transact(lambda tx: tx.builds.due(time.time(), free + len(self._running)))
        for key in [key for key in due if key not in self._running][:free]:
            task = asyncio.create_task(self._work_and_close(*key), name=f"build {key}")
            self._running[key] = task
            task.add_done_callback(lambda task, key=key: self._done(key, task))  # type: ignore[misc]

    async def _wait(self) -> None:
        next_due = await self._store.transact(lambda tx: tx.builds.next_due())
        timeout = None
        if next_due is not None and len(self._running) < self._parallel:
            timeout = max(0.05, next_due - time.time())
        # Not wait_for, which before Python 3.12 forgets a cancel that comes together with what it waits for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    def _done(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._running[key]
        if not task.cancelled():
            self._broken = self._broken or task.exception()
        self._wake.set()

    def _heard(self, signal: Signal) -> None:
        if isinstance(signal, BuildsQueued):
            self._wake.set()

    def _requeue_unfinished(self, tx: Transaction) -> list[tuple[str, str]]:
        unfinished = tx.builds.unfinished()
        for build_id, key in unfinished:
            build, target = _target(tx, build_id, key)
            self._store_target(tx, build, replace(target, state=BuildState.QUEUED, next_try=0.0))
        return unfinished

    async def _work_and_close(self, build_id: str, key: str) -> None:
        try:
            await self._work(build_id, key)
        finally:
            self._logs.close(build_id)

    async def _work(self, build_id: str, key: str) -> None:
        """One try at one target; its outcome is stored, whatever happens."""
        build, target = await self._store.transact(lambda tx: _target(tx, build_id, key))
        target = replace(target, attempts=target.attempts + 1, started=target.started or time.time())
        progress = _Progress(self, build, target)
        bound = log.bind(build=build_id, target=key)
        bound.info("build target begins", attempt=target.attempts)
        try:
            outcome = _succeeded(progress, await self._build(build, target, progress))
        except BuildFailed as failure:
            outcome = _failed(progress.target, failure)
        except Exception as error:  # noqa: BLE001 - logged; a broken target must not stop the queue
            bound.exception("building broke")
            message = f"the controller failed while building: {error!r}; see its log"
            outcome = _failed(progress.target, BuildFailed("InternalError", message))
        await progress.finish()
        # Here and not in the transaction: logs belong to the event loop.
        self._log_outcome(build, outcome)
        await self._store.transact(lambda tx: self._store_outcome(tx, build, outcome))
        bound.info("build target ends", state=outcome.state, reason=outcome.reason)

    async def _build(self, build: Build, target: BuildTarget, progress: "_Progress") -> BuildResult:
        def on_line(stream: str, text: str) -> None:
            self._logs.append(build.id, target.key, stream, text)

        # A large spec takes a while to be read.
        job = await asyncio.to_thread(self._job, build, target)
        return await self._builder.build(job, on_line, progress.on_state)

    def _job(self, build: Build, target: BuildTarget) -> TargetJob:
        spec = load_spec(build.spec)
        return TargetJob(
            build_id=build.id,
            user_id=build.user_id,
            project_id=build.project_id,
            name=build.name,
            profile=target.profile,
            kind=target.kind,
            target=target.key,
            spec=spec.build,
            deploy=spec.deploy,
            files=build.files,
            repository=f"{self._registry_address}/{repository_path(build, spec.build.image)}",
        )

    def _store_outcome(self, tx: Transaction, build: Build, outcome: BuildTarget) -> None:
        if outcome.done:
            outcome = replace(outcome, ended=time.time())
        self._store_target(tx, build, outcome)

    def _log_outcome(self, build: Build, outcome: BuildTarget) -> None:
        text = f"{outcome.state.lower()}"
        if outcome.artifact is not None:
            text = f"pushed {outcome.artifact.repository}@{outcome.artifact.digest}"
        elif outcome.reason:
            again = "" if outcome.done else "; tried again by itself"
            text = f"{outcome.reason}: {outcome.message}{again}"
        self._logs.append(build.id, outcome.key, "system", text)

    def _store_target(self, tx: Transaction, build: Build, target: BuildTarget) -> None:
        tx.builds.change_target(build.id, target)
        tx.events.append(target_event(build, target))
        for deployment in tx.deployments.of_build(build.id):
            place(tx, deployment)
            reassess(tx, deployment)


class _Progress:
    """Stores the states that a builder passes through, in order, without making it wait."""

    def __init__(self, queue: BuildQueue, build: Build, target: BuildTarget) -> None:
        self.target = target
        self._queue = queue
        self._build = build
        self._last: asyncio.Task[None] | None = None

    def on_state(self, state: BuildState) -> None:
        self.target = replace(self.target, state=state, reason="", message="")
        self._last = asyncio.create_task(self._store(self._last, self.target))

    async def finish(self) -> None:
        """All states are stored."""
        if self._last is not None:
            await self._last

    async def _store(self, before: asyncio.Task[None] | None, target: BuildTarget) -> None:
        if before is not None:
            await before
        await self._queue._store.transact(lambda tx: self._queue._store_target(tx, self._build, target))


def repository_path(build: Build, image: str | None = None) -> str:
    """Where a build's artifacts lie in the registry."""
    return "/".join(_component(name) for name in (build.user_id, build.project_id, image or build.name))


def _component(name: str) -> str:
    """The name as a part of a repository's, whose grammar is narrower (OCI distribution spec, "Pulling manifests").

    One that is not allowed as it stands gets a mark made from it, so that no two owners ever share a repository.
    """
    if COMPONENT.fullmatch(name) and not MARKED.search(name):
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{plain}-x{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _succeeded(progress: _Progress, result: BuildResult) -> BuildTarget:
    made = replace(progress.target, artifact=result.artifact, notes=result.notes, host=result.host)
    return replace(made, state=BuildState.SUCCEEDED, reason="", message="")


def _failed(target: BuildTarget, failure: BuildFailed) -> BuildTarget:
    failed = replace(
        target, reason=failure.reason, message=failure.message, failed_step=failure.step, last_lines=failure.last_lines
    )
    if not failure.retryable:
        return replace(failed, state=BuildState.FAILED)
    delay = min(RETRY_LONGEST, RETRY_FIRST * 2 ** min(target.attempts - 1, 10))
    return replace(failed, state=BuildState.QUEUED, next_try=time.time() + delay)


def _target(tx: Transaction, build_id: str, key: str) -> tuple[Build, BuildTarget]:
    build = tx.builds.get(build_id)
    if build is None:
        raise LookupError(f"no build {build_id}")
    return build, next(target for target in build.targets if target.key == key)
