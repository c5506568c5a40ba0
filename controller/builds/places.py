"""Where waiting targets stand in the queue, for those who look."""

import asyncio
import time
from collections.abc import Collection, Mapping

from controller.builds.order import positions
from controller.store import Store, Transaction

# Build's id and target's key -> how many begin before it, plus one.
Positions = Mapping[tuple[str, str], int]
# What took so long to count is handed out for so many times as long: many who look at a long queue cost no more than
# a part of the controller's time.
REST = 20


class QueuePlaces:
    """Counts only as often as is cheap: a place may be out of date by twenty times what counting took."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counted: Positions = {}
        self._good_until = 0.0
        self._counting = asyncio.Lock()

    async def of(self, targets: Collection[tuple[str, str]]) -> Positions:
        """The places of these targets, where they wait; of others too."""
        async with self._counting:
            if time.monotonic() > self._good_until or not all(target in self._counted for target in targets):
                began = time.monotonic()
                self._counted = await self._store.transact(_count)
                now = time.monotonic()
                self._good_until = now + REST * (now - began)
            return self._counted


def _count(tx: Transaction) -> Positions:
    return positions(tx.queue.waiting(), tx.queue.load())
