"""Following the event log of a project: first what is stored, then what comes, without gap or repeat."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from controller.errors import OutOfRange
from controller.events.model import Event, Project
from controller.store import EventsAppended, Signal, Store, Transaction
from longshore.errors import Reason

HEARTBEAT = 15.0


@dataclass(frozen=True)
class Filter:
    """Only events that speak of this deployment (its builds included) or this build; empty: all."""

    deployment_id: str = ""
    build_id: str = ""


class EventFeed:
    """Reads the log; woken by the store's signals, so that nobody polls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiters: dict[Project, set[asyncio.Event]] = {}
        store.subscribe(self._heard)

    async def watch(
        self, project: Project, after: int, follow: bool, only: Filter = Filter(), heartbeat: float = HEARTBEAT
    ) -> AsyncIterator[Event | None]:
        """Events with a number greater than `after`, in order; None as a heartbeat while nothing comes.

        Raises OutOfRange where events after this number were trimmed.
        """
        await self._refuse_trimmed(project, after)
        wake = asyncio.Event()
        self._waiters.setdefault(project, set()).add(wake)
        try:
            while True:
                wake.clear()
                events, searched = await self._store.transact(lambda tx, at=after: _page(tx, project, at, only))  # type: ignore[misc]
                for event in events:
                    yield event
                if searched > after:
                    after = searched
                    continue
                if not follow:
                    return
                try:
                    async with asyncio.timeout(heartbeat):
                        await wake.wait()
                except TimeoutError:
                    yield None
        finally:
            self._forget(project, wake)

    async def _refuse_trimmed(self, project: Project, after: int) -> None:
        oldest = await self._store.transact(lambda tx: tx.events.oldest_number(project))
        if oldest > after + 1:
            message = f"events before number {oldest} were trimmed; read the present state, then watch from there"
            raise OutOfRange(Reason.EVENTS_TRIMMED, message, oldest=str(oldest))

    def _heard(self, signal: Signal) -> None:
        if isinstance(signal, EventsAppended):
            for wake in self._waiters.get(signal.project, ()):
                wake.set()

    def _forget(self, project: Project, wake: asyncio.Event) -> None:
        waiters = self._waiters[project]
        waiters.discard(wake)
        if not waiters:
            del self._waiters[project]


def _page(tx: Transaction, project: Project, after: int, only: Filter) -> tuple[list[Event], int]:
    build_ids = [only.build_id] if only.build_id else []
    if only.deployment_id:
        build_ids += tx.deployments.builds_of(only.deployment_id)
    return tx.events.after(project, after, only.deployment_id, build_ids)
