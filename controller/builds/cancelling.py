"""Work that a cancel must not tear: it is finished first, and the cancel takes effect afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import ParamSpec, TypeVar

# What the cancel of a build says that is no wish of its user: it is taken up again, and may find what it has made.
STOPPING = "the controller stops"
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def is_stop(error: BaseException) -> bool:
    """Whether a cancel says STOPPING."""
    return isinstance(error, asyncio.CancelledError) and error.args == (STOPPING,)


async def despite_cancel(work: Awaitable[Result]) -> Result:
    """Finishes `work` even when the task is cancelled meanwhile; the caller raises CancelledError itself."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.wait([task]))
    return task.result()


@contextlib.asynccontextmanager
async def aside(work: Coroutine[None, None, Result]) -> AsyncIterator[asyncio.Task[Result]]:
    """Does `work` while the block does something else; nothing of it runs when the block has ended."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await despite_cancel(asyncio.wait([task]))
        # Where the block failed first, nobody asks how this ended.
        if not task.cancelled():
            task.exception()


async def in_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Like asyncio.to_thread, but a cancel is raised only when the thread is done.

    What it writes is thus there before the clean-up begins, and a lock that its caller holds is held until the end.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await despite_cancel(asyncio.wait([task]))
        raise
