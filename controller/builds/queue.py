"""Works the queue of build targets off. The queue itself is rows: a killed controller finds it again as it was."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace

import structlog

from controller.builds.attempt import Attempt
from controller.builds.cancelling import STOPPING
from controller.builds.desk import Builder, Desk
from controller.builds.holding import Hold
from controller.builds.joining import Joiner
from controller.builds.model import BuildState
from controller.builds.order import Load, Waiting, next_to_begin
from controller.builds.recording import CANCELLED_TEXT, cancelled, existing_target, record
from controller.store import BuildCancelled, BuildEnded, BuildsQueued, JoinDue, Signal, Transaction

__all__ = ["BuildQueue", "Builder", "Desk", "QueueBroken"]
log = structlog.get_logger()


class QueueBroken(Exception):
    """What a build ended with cannot be stored, for another cause than a database that takes nothing now: a restart
    takes it up again, going on would leave it begun for ever."""


class BuildQueue:
    """Runs at most `parallel` targets at a time, `per_user` of one user, until `run()` is cancelled."""

    def __init__(self, desk: Desk, joiner: Joiner, parallel: int, per_user: int, hold: Hold | None = None) -> None:
        self._desk = desk
        self._hold = hold
        self._joiner = joiner
        self._parallel = parallel
        self._per_user = per_user
        self._wake = asyncio.Event()
        self._running: dict[tuple[str, str], Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        desk.store.subscribe(self._heard)
        desk.builder.on_free(self._wake.set)

    async def run(self) -> None:
        """Takes unfinished targets up again, then works. When cancelled, running builds are cancelled and stay
        unfinished: the next start takes them up. Raises QueueBroken."""
        await self._desk.builder.recover()
        await self._take_up()
        self._start(self._joiner.run(), "joining")
        try:
            while True:
                self._wake.clear()
                if self._broken is not None:
                    raise QueueBroken("the outcome of a build cannot be stored") from self._broken
                looked = time.time()
                await self._begin_due()
                await self._wait(looked)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel(STOPPING)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin_due(self) -> None:
        """Lets all begin whose turn it is; each only when the builder counts the one before."""
        while len(self._running) < self._parallel and all(each.entered for each in self._running.values()):
            # Of each user that many: fewer run, and each of those keeps at most one from its turn.
            due, served = await self._desk.store.insist(lambda tx: _due(tx, self._parallel))
            following = self._pick(due, served)
            if following is None or (self._hold and await self._hold.holds(self._wake.set)):
                return
            attempt = Attempt(self._desk, following, self._wake.set)
            self._running[following.name] = attempt
            self._start(self._work(attempt), f"build {following.build_id} {following.key}")

    def _pick(self, due: Sequence[Waiting], served: Mapping[str, float]) -> Waiting | None:
        running = [attempt.waiting for attempt in self._running.values()]
        names, keys = {each.name for each in running}, {each.cache_key for each in running if each.cache_key}

        def may(one: Waiting) -> bool:
            # An identical one that runs already will be the answer to this one too.
            answered = self._desk.reuse.enabled and one.cache_key in keys
            return not answered and one.name not in names and self._desk.builder.takes(one.profile, one.kind)

        return next_to_begin(due, Load(Counter(each.user_id for each in running), served), self._per_user, may)

    async def _wait(self, looked: float) -> None:
        """Returns when something may have changed, or when the time of a target comes, or came, that had not come when
        the queue `looked`."""
        due = await self._desk.store.insist(lambda tx: tx.queue.next_due(looked))
        timeout = None if due is None else max(0.05, due - time.time())
        # Not wait_for, which before Python 3.12 forgets a cancel that comes together with what it waits for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    async def _work(self, attempt: Attempt) -> None:
        try:
            await attempt.run()
        finally:
            del self._running[attempt.waiting.name]
            self._desk.logs.close(attempt.waiting.build_id)

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._broken = self._broken or task.exception()
        self._wake.set()

    def _heard(self, signal: Signal) -> None:
        if isinstance(signal, BuildsQueued):
            self._wake.set()
        elif isinstance(signal, BuildCancelled):
            self._end(signal.build_id)
        elif isinstance(signal, BuildEnded):
            self._start(self._finish_log(signal.build_id), f"log of {signal.build_id}")
        elif isinstance(signal, JoinDue):
            self._joiner.wake()

    async def _finish_log(self, build_id: str) -> None:
        try:
            await self._desk.logs.finish(build_id)
        except OSError:
            log.exception("the log of a build stays uncompressed", build=build_id)

    def _end(self, build_id: str) -> None:
        self._desk.logs.append(build_id, "", "system", "somebody asked to cancel this build")
        for attempt in self._running.values():
            if attempt.waiting.build_id == build_id:
                attempt.end()

    async def _take_up(self) -> None:
        """What a killed controller was building is queued again, or has ended where that was wished."""
        for build_id, key, text in await self._desk.store.insist(_take_up):
            self._desk.logs.append(build_id, key, "system", text)
            self._desk.logs.close(build_id)


def _due(tx: Transaction, each: int) -> tuple[list[Waiting], Mapping[str, float]]:
    """What waits and may begin, and when each user was served last."""
    return tx.queue.due(time.time(), each), tx.queue.served()


def _take_up(tx: Transaction) -> list[tuple[str, str, str]]:
    """(build id, target's key, what the log says) of each target."""
    said = []
    for build_id, key in tx.queue.unfinished():
        build, target = existing_target(tx, build_id, key)
        if build.cancel_requested:
            record(tx, build_id, cancelled(target))
            said.append((build_id, key, CANCELLED_TEXT))
        else:
            record(tx, build_id, replace(target, state=BuildState.QUEUED, next_try=0.0))
            said.append((build_id, key, "the controller was restarted; this target is built again"))
    return said
