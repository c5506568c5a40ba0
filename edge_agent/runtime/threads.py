"""A blocking call beside the event loop, in a thread that never holds up the end of the process."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], abandoned: Callable[[], None] = lambda: None) -> T:
    """What `call` returns or raises, run in a daemon thread.

    Cancelled, it returns at once while the thread goes on by itself; `abandoned` is then called in that thread when
    `call` has ended. (The event loop's own executor would keep a stopping process alive until a name lookup gives up.)
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    given_up = threading.Event()

    def finish(value: T | None, error: Exception | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # T may itself be None

    def run() -> None:
        value, error = None, None
        try:
            value = call()
        except Exception as raised:  # noqa: BLE001  # handed to the caller, whatever it is
            error = raised
        if given_up.is_set():
            abandoned()
        # A loop that is closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, value, error)

    threading.Thread(target=run, daemon=True, name="longshore-blocking").start()
    try:
        return await result
    except asyncio.CancelledError:
        given_up.set()
        raise
