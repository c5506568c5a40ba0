"""What the Project Manager's calls do: each answers at once, the rest goes on behind it."""

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import Any

import structlog

from controller.bridge.folders import NotUsable
from controller.bridge.model import Entry, Key, Seen, Status, addresses, judged, started, stopping
from controller.bridge.worker import Means, Worker
from longshore.client import Answer
from longshore.failures import LongshoreError

log = structlog.get_logger()
# The manager gives a call 5 s.
_PATIENCE, _FOLDER_PATIENCE = 3.0, 1.0


class UnknownProject(Exception):
    """It has no folder, nothing was asked for in it, and the controller has no deployment of it."""


@dataclass(frozen=True)
class View:
    """What is true of a project, and where it answers."""

    status: Status
    reason: str = ""
    message: str = ""
    name: str = ""
    endpoints: tuple[dict[str, Any], ...] = ()
    # Why the last start was refused, whatever runs.
    refused: str = ""


class Bridge:
    """One worker for each project in which something goes on; projects wait for nothing of each other."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._workers: dict[Key, tuple[Worker, asyncio.Task[None]]] = {}
        # Why the last start was answered with an error.
        self._refusals: dict[Key, str] = {}

    def resume(self) -> None:
        """Goes on with what was asked for before the bridge ended, however it ended."""
        for entry in self._means.journal.all():
            if not entry.reported:
                self._work(entry.key)

    async def start(self, key: Key) -> None:
        """Afterwards the start is durable. Raises NotUsable."""
        try:
            async with _in_time():
                work = await asyncio.to_thread(self._means.folders.work, key)
        except (NotUsable, TimeoutError) as error:
            why = str(error) or "the shared folder does not answer"
            if await self._known(key):
                self._refusals[key] = why
            raise NotUsable(why) from error
        self._refusals.pop(key, None)
        for warning in work.warnings:
            log.warning("read in an older form", **vars(key), warning=warning)
        self._ask(started(key, secrets.token_hex(16), self._means.journal.get(key), work.name))

    async def stop(self, key: Key) -> None:
        """Afterwards the stop is durable. Raises UnknownProject."""
        newest = None if self._means.journal.get(key) else await self._newest(key)
        # Something may have been started while the controller was asked.
        self._ask(stopping(key, secrets.token_hex(16), self._means.journal.get(key), newest))

    async def view(self, key: Key) -> View:
        """Raises UnknownProject. While the controller is away, what it said last."""
        seen, refusal = await self._view(key), self._refusals.get(key, "")
        if refusal and seen.status is Status.READY:
            return View(Status.FAILED, "InvalidProject", refusal, refused=refusal)
        return replace(seen, refused=refusal)

    async def _view(self, key: Key) -> View:
        entry = self._means.journal.get(key)
        if entry is None:
            newest = await self._newest(key)
            return _told(newest) if newest else View(Status.READY)
        kept = View(entry.seen, entry.reason, entry.message, entry.name)
        if not (entry.applied or entry.stop) or not entry.name:
            return kept
        try:
            async with _in_time():
                answer = await self._means.controller.look(key, entry.name)
        except (LongshoreError, TimeoutError) as error:
            log.warning("the controller does not answer", **vars(key), error=str(error))
            return kept
        return _told(answer) if answer else View(Status.STOPPED, name=entry.name)

    async def close(self) -> None:
        """Ends all work; `resume` goes on with it."""
        tasks = [task for _, task in self._workers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _newest(self, key: Key) -> Answer | None:
        """Raises UnknownProject. A controller that is away has nothing to say about a project that has a folder."""
        known = await self._known(key)
        try:
            async with _in_time():
                answer = await self._means.controller.newest(key)
        except (LongshoreError, TimeoutError) as error:
            log.warning("the controller does not answer", **vars(key), error=str(error))
            answer = None
        if answer is None and not known:
            raise UnknownProject
        return answer

    async def _known(self, key: Key) -> bool:
        """A shared folder that does not answer, or only with an error, makes no project unknown."""
        try:
            async with asyncio.timeout(_FOLDER_PATIENCE):
                return await asyncio.to_thread(self._means.folders.known, key)
        except OSError:
            # TimeoutError is one.
            return True

    def _ask(self, entry: Entry) -> None:
        try:
            self._means.journal.put(entry)
        except OSError as error:
            raise NotUsable(f"cannot keep what was asked for: {error.strerror}") from error
        self._work(entry.key)

    def _work(self, key: Key) -> None:
        worker, task = self._workers.get(key, (None, None))
        if worker is not None and task is not None and not task.done():
            worker.wake()
            return
        worker = Worker(key, self._means)
        task = asyncio.create_task(worker.run(), name=f"bridge-{key.user_id}-{key.project_id}")
        task.add_done_callback(lambda ended: self._ended(key, ended))
        self._workers[key] = (worker, task)

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("the work for a project broke off; a start or stop begins it again", **vars(key), exc_info=error)


def _in_time() -> asyncio.Timeout:
    return asyncio.timeout(_PATIENCE)


def _told(answer: Answer) -> View:
    seen: Seen = judged(answer)
    return View(seen.status, seen.reason, seen.message, answer.deployment.name, tuple(addresses(answer)))
