"""Following the event log of a project: first what is stored, then what comes, without gap or repeat."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from controller.errors import OutOfRange
from controller.events.model import Event, EventKind, Project, Wanted
from controller.store import EventsAppended, Signal, Store, Transaction
from longshore.errors import Reason

HEARTBEAT = 15.0


@dataclass(frozen=True)
class Filter:
    """Only events that speak of this deployment (its builds included) or this build; empty: all. The others as of
    `Wanted`."""

    deployment_id: str = ""
    build_id: str = ""
    device_id: str = ""
    kinds: tuple[EventKind, ...] = ()
    states: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heartbeat:
    """Nothing for the watcher up to this number of the log."""

    searched: int


class EventFeed:
    """Reads the log; woken by the store's signals, so that nobody polls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiters: dict[Project, set[asyncio.Event]] = {}
        store.subscribe(self._heard)

    async def watch(
        self, project: Project, after: int, follow: bool, only: Filter = Filter(), heartbeat: float = HEARTBEAT
    ) -> AsyncIterator[Event | Heartbeat]:
        """Events with a number greater than `after`, in order; a heartbeat while nothing comes for it.

        Raises OutOfRange where events after this number were trimmed, also while they are being read.
        """
        said = time.monotonic()
        wake = asyncio.Event()
        self._waiters.setdefault(project, set()).add(wake)
        try:
            while True:
                wake.clear()
                events, searched = await self._store.transact(lambda tx, at=after: _page(tx, project, at, only))  # type: ignore[misc]
                for event in events:
                    yield event
                if events:
                    said = time.monotonic()
                moved, after = searched > after, max(searched, after)
                if not moved and not follow:
                    return
                if moved and (not follow or time.monotonic() < said + heartbeat):
                    continue
                # Also where others are busy: what is not for this watcher is no sign of life to it.
                if not await _woken(wake, said + heartbeat):
                    yield Heartbeat(after)
                    said = time.monotonic()
        finally:
            self._forget(project, wake)

    def _heard(self, signal: Signal) -> None:
        if isinstance(signal, EventsAppended):
            for wake in self._waiters.get(signal.project, ()):
                wake.set()

    def _forget(self, project: Project, wake: asyncio.Event) -> None:
        waiters = self._waiters[project]
        waiters.discard(wake)
        if not waiters:
            del self._waiters[project]


async def _woken(wake: asyncio.Event, until: float) -> bool:
    """Whether the log has grown before this moment."""
    if (left := until - time.monotonic()) <= 0:
        return False
    try:
        async with asyncio.timeout(left):
            await wake.wait()
    except TimeoutError:
        return False
    return True


def _page(tx: Transaction, project: Project, after: int, only: Filter) -> tuple[list[Event], int]:
    oldest = tx.events.oldest_number(project)
    if oldest > after + 1:
        message = f"events before number {oldest} were trimmed; read the present state, then watch from there"
        raise OutOfRange(Reason.EVENTS_TRIMMED, message, oldest=str(oldest))
    build_ids = [only.build_id] if only.build_id else []
    if only.deployment_id:
        build_ids += tx.deployments.builds_of(only.deployment_id)
    wanted = Wanted(only.deployment_id, build_ids, only.device_id, only.kinds, only.states)
    return tx.events.after(project, after, wanted)
