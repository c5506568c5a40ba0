"""How several listeners of one event loop hear that something changed."""

import asyncio
import contextlib
from collections.abc import Iterator


class Bell:
    """Wakes all who listen. Rings between two waits of one listener are not lost."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()

    def ring(self) -> None:
        for listener in self._listeners:
            listener.set()

    @contextlib.contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        listener = asyncio.Event()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
