"""Builds that must not begin now, because the disk is nearly full: they wait, say why, and go on by themselves."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from controller.builds.recording import existing_target, record
from controller.errors import NotStored
from controller.store import Store, Transaction

log = structlog.get_logger()
REASON = "DiskNearlyFull"
# So often it is looked whether there is room again.
LOOK_AGAIN = 5.0
# Of one user, profile and kind so many waiting targets are told.
TOLD = 50


class Hold:
    """`ready`: "" while builds may begin, else a sentence that says why not; it may block as long as asking the
    disk takes."""

    def __init__(self, store: Store, ready: Callable[[], str]) -> None:
        self._store = store
        self._ready = ready
        self._holding = False
        # Also of a controller before this one.
        self._told = True
        self._again: asyncio.TimerHandle | None = None

    async def holds(self, wake: Callable[[], None]) -> bool:
        """Whether nothing may begin now; then `wake` is called when it is worth asking again. Waiting targets bear
        reason and sentence while it is so."""
        said = await asyncio.to_thread(self._ready)
        if self._again is not None:
            self._again.cancel()
        if said:
            self._told = True
            # A database that takes nothing has no room for that either; it is said at the next look.
            with contextlib.suppress(NotStored):
                await self._store.transact(lambda tx: _tell(tx, said))
            self._again = asyncio.get_running_loop().call_later(LOOK_AGAIN, wake)
        # Some at a time: there may be very many, and others write meanwhile.
        while self._told and not said:
            self._told = await self._store.insist(_untell)
        if bool(said) is not self._holding:
            self._holding = bool(said)
            log.warning("builds wait", reason=said) if said else log.info("builds begin again")
        return self._holding


def _tell(tx: Transaction, said: str) -> None:
    for waiting in tx.queue.due(time.time(), TOLD, alike=True):
        _, target = existing_target(tx, waiting.build_id, waiting.key)
        if target.reason != REASON:
            record(tx, waiting.build_id, replace(target, reason=REASON, message=said))


def _untell(tx: Transaction) -> bool:
    """Whether there are more."""
    bearing = tx.queue.waiting(REASON)
    for waiting in bearing[:TOLD]:
        _, target = existing_target(tx, waiting.build_id, waiting.key)
        record(tx, waiting.build_id, replace(target, reason="", message=""))
    return len(bearing) > TOLD
