"""One try at one target: from its turn to its outcome, which is stored whatever happens."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from controller.builds.cache_key import cache_key
from controller.builds.desk import Desk
from controller.builds.full_disk import waiting_for_room
from controller.builds.jobs import target_job
from controller.builds.masking import Mask
from controller.builds.model import Build, BuildFailed, BuildResult, BuildState, BuildTarget, TargetJob
from controller.builds.order import Waiting
from controller.builds.progress import Progress
from controller.builds.recording import CANCELLED_TEXT, cancelled
from controller.builds.reuse import reuse_line
from controller.builds.secrets import opened
from controller.builds.turns import claim, failed, store_outcome, succeeded
from controller.spec.loader import load_spec

log = structlog.get_logger()


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
        """Never raises because of the build; raises what hinders its outcome from being stored for ever."""
        try:
            await self._run()
        finally:
            self._enter()

    async def _run(self) -> None:
        build_id, key = self.waiting.name
        claimed = await self._desk.store.insist(lambda tx: claim(tx, build_id, key))
        if claimed is None:
            return
        build, target = claimed
        progress = Progress(self._desk.store, build_id, target)
        try:
            await self._see_through(build, target, progress)
        finally:
            await progress.abandon()

    async def _see_through(self, build: Build, target: BuildTarget, progress: Progress) -> None:
        bound = log.bind(build=build.id, target=target.key)
        bound.info("build target begins", attempt=target.attempts)
        try:
            outcome = await self._outcome(build, target, progress)
        except BuildFailed as failure:
            outcome = failed(progress.target, failure, self._desk.retry_seconds)
        except Cancelled:
            outcome = cancelled(progress.target)
        except Exception as error:  # noqa: BLE001 - logged; a broken target must not stop the queue
            bound.exception("building broke")
            message = f"the controller failed while building: {error!r}; see its log"
            outcome = failed(progress.target, BuildFailed("InternalError", message), 0)
        await progress.finish()
        # Here and not in the transaction: logs belong to the event loop.
        self._log_outcome(build.id, outcome)
        await self._desk.store.insist(lambda tx: store_outcome(tx, build.id, outcome))
        bound.info("build target ends", state=outcome.state, reason=outcome.reason)

    async def _outcome(self, build: Build, target: BuildTarget, progress: Progress) -> BuildTarget:
        sealed = await self._desk.store.insist(lambda tx: tx.builds.secrets(build.id))
        # A large spec takes a while to be read.
        job, timeout, name = await asyncio.to_thread(self._job, build, target, sealed)
        progress.target = target = replace(target, cache_key=name)
        if not build.no_cache and (ready := await self._ready(target)) is not None:
            self._desk.logs.append(build.id, target.key, "system", reuse_line(ready))
            return ready
        result = await self._build(job, timeout, progress)
        with waiting_for_room("keep the bill of materials"):
            await asyncio.to_thread(self._desk.materials.save, build.id, target.key, result.sbom)
        return succeeded(progress.target, result)

    async def _ready(self, target: BuildTarget) -> BuildTarget | None:
        """The target, where it needs no building."""
        answered = await self._desk.store.patiently(lambda: self._desk.reuse.answer({target.key: target}))
        return answered.get(target.key)

    async def _build(self, job: TargetJob, timeout: float, progress: Progress) -> BuildResult:
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
        job = target_job(build, target, spec, self._desk.registry, opened(self._desk.secrets, sealed))
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
        elif outcome.reason:
            again = "" if outcome.done else "; tried again by itself"
            text = f"{outcome.reason}: {outcome.message}{again}"
        if not outcome.cached_from:
            self._desk.logs.append(build_id, outcome.key, "system", text)
