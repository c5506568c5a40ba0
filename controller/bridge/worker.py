"""Brings about what was asked for last in one project, and reports how it ended."""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from controller.bridge.folders import Folders, NotUsable, Work
from controller.bridge.journal import Journal
from controller.bridge.model import Entry, Key, Status, going, judged
from controller.bridge.reports import NotTaken
from longshore.client import Answer
from longshore.failures import LongshoreError

log = structlog.get_logger()
# With back-off up to a minute that is about ten minutes.
REPORT_TRIES = 15
# Seconds between looks at what goes on, and between tries of what was not taken, at most.
_LOOK, _TRY = 5.0, 60.0
# Codes of failures after which the same call may succeed.
_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


class Controller(Protocol):
    async def deploy(self, key: Key, work: Work, request_id: str) -> str: ...

    async def look(self, key: Key, name: str) -> Answer | None: ...

    async def newest(self, key: Key) -> Answer | None: ...

    async def stop(self, key: Key, name: str) -> None: ...


class Reporter(Protocol):
    async def report(self, key: Key, status: Status) -> None: ...


@dataclass(frozen=True)
class Means:
    """What every worker works with. `first_pause`: seconds before a second try; each further wait is twice as long."""

    journal: Journal
    folders: Folders
    controller: Controller
    manager: Reporter
    first_pause: float = 1.0


class Worker:
    """One project's. It always acts on the journal's entry, so that a newer asking takes the place of an older one."""

    def __init__(self, key: Key, means: Means) -> None:
        self._key, self._means = key, means
        self._asked = asyncio.Event()

    def wake(self) -> None:
        """Something new was asked for."""
        self._asked.set()

    async def run(self) -> None:
        """Until the manager has the report about what was asked for last, or has not taken it often enough."""
        tries, request_id = 0, ""
        while (entry := self._means.journal.get(self._key)) and not entry.reported:
            tries = tries + 1 if entry.request_id == request_id else 0
            request_id = entry.request_id
            if not await self._act(entry):
                await self._pause(tries, _LOOK)

    async def _act(self, entry: Entry) -> bool:
        """Whether there is more to do at once."""
        try:
            return await (self._step(entry) if entry.end is None else self._report(entry))
        except OSError as error:
            log.error("what was done cannot be kept, and is tried again", **vars(self._key), error=str(error))
            return False

    async def _step(self, entry: Entry) -> bool:
        try:
            if entry.stop:
                return await self._stop(entry)
            return await (self._watch(entry) if entry.applied else self._deploy(entry))
        except LongshoreError as failure:
            # Only what was not accepted has failed: of what was, a refused look says nothing.
            if entry.stop or entry.applied or failure.code in _PASSING:
                log.warning("the controller will be asked again", **vars(self._key), reason=failure.reason)
                return False
            self._fail(entry, failure.reason, failure.message)
            return True

    async def _deploy(self, entry: Entry) -> bool:
        try:
            work = await asyncio.to_thread(self._means.folders.work, self._key)
        except NotUsable as refusal:
            self._fail(entry, "InvalidProject", str(refusal))
            return True
        # Before the upload: a stop meanwhile has to know of it, also where the file names another service by now.
        entry = entry.named(work.name)
        self._means.journal.change(entry)
        if self._asked_since(entry):
            return True
        name = await self._means.controller.deploy(self._key, work, entry.request_id)
        self._means.journal.change(replace(entry.named(name), applied=True, seen=Status.PREPARING))
        return True

    async def _watch(self, entry: Entry) -> bool:
        answer = await self._means.controller.look(self._key, entry.name)
        if answer is None:
            self._means.journal.change(entry.ended(Status.STOPPED, "Deleted", "it was deleted"))
            return True
        seen = judged(answer)
        now = replace(entry, seen=seen.status, reason=seen.reason, message=seen.message, end=seen.end)
        self._means.journal.change(now)
        return seen.end is not None

    async def _stop(self, entry: Entry) -> bool:
        left = False
        for name in entry.names:
            answer = await self._means.controller.look(self._key, name)
            if answer is None or judged(answer).status is Status.STOPPED:
                continue
            left = True
            if not going(answer):
                await self._means.controller.stop(self._key, name)
        if not left:
            self._means.journal.change(entry.ended(Status.STOPPED))
        return not left

    def _fail(self, entry: Entry, reason: str, message: str) -> None:
        log.error("a project failed", **vars(self._key), reason=reason, message=message)
        self._means.journal.change(entry.ended(Status.FAILED, reason, message))

    async def _report(self, entry: Entry) -> bool:
        assert entry.end is not None
        for tries in range(REPORT_TRIES):
            try:
                await self._means.manager.report(self._key, entry.end)
                break
            except NotTaken as error:
                log.warning("a report was not taken", **vars(self._key), status=entry.end, error=str(error))
            await self._pause(tries, _TRY)
            if self._asked_since(entry):
                return True
        else:
            log.error("a report is given up", **vars(self._key), status=entry.end, tries=REPORT_TRIES)
        self._means.journal.change(replace(entry, reported=True))
        return True

    def _asked_since(self, entry: Entry) -> bool:
        now = self._means.journal.get(self._key)
        return now is None or now.request_id != entry.request_id

    async def _pause(self, tries: int, longest: float) -> None:
        """Ends early when something new is asked for."""
        seconds = min(longest, self._means.first_pause * 2 ** min(tries, 10))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), seconds)
        self._asked.clear()
