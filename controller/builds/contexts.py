"""Build contexts for people who ask for them: few are made at a time, for each user one after another."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from controller.builds.model import BuildFailed, TargetJob
from controller.errors import ResourceExhausted
from longshore.errors import Reason

# So many are made at a time, of which so many are one user's; who asks for more waits.
PARALLEL = 2
PER_USER = 1

Make = Callable[[TargetJob], AbstractAsyncContextManager[Path]]


class Contexts:
    """`make` gives the folder of a job's context while its block lasts. `full`: "" while there is room, else a
    sentence that says why there is none; it may block as long as asking the disk takes."""

    def __init__(self, make: Make, full: Callable[[], str]) -> None:
        self._make = make
        self._full = full
        self._making = asyncio.Semaphore(PARALLEL)
        # A user is in it while somebody waits or works for it.
        self._users: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def folder(self, job: TargetJob) -> AsyncIterator[Path]:
        """The folder of an image's whole build context while the block lasts, which is its user's turn.

        Raises BuildFailed, also where making it takes longer than the build may, and ResourceExhausted DISK_FULL.
        """
        # The name keeps it alive.
        turn = self._users.setdefault(job.user_id, asyncio.Semaphore(PER_USER))
        async with turn, AsyncExitStack() as stack:
            # Not held while the folder is read: who reads slowly is in nobody's way but its own user's.
            async with self._making:
                folder = await self._made(job, stack)
            yield folder

    async def _made(self, job: TargetJob, stack: AsyncExitStack) -> Path:
        if full := await asyncio.to_thread(self._full):
            raise ResourceExhausted(Reason.DISK_FULL, full)
        seconds = job.spec.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds) as limit:
                return await stack.enter_async_context(self._make(job))
        except TimeoutError:
            if not limit.expired():
                raise
            raise BuildFailed("TimedOut", f"not made within {seconds:g} s; raise build.timeout") from None
