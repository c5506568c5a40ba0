"""The states that a target passes through while it is built, stored in order."""

import asyncio
from dataclasses import replace

from controller.builds.model import BuildState, BuildTarget
from controller.builds.recording import record
from controller.store import Store


class Progress:
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
        await self._store.insist(lambda tx: record(tx, self._build_id, target))
