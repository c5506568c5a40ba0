"""What one thread gives and gRPC takes: the requests of a call that speaks both ways."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

M = TypeVar("M")

# Requests that wait; then who gives them has to.
MOST_WAITING = 4


class Outbox(Generic[M]):
    """An iterator of requests. Safe to use from several threads."""

    def __init__(self, first: M) -> None:
        self._first: M | None = first
        self._waiting: deque[M] = deque()
        self._urgent: M | None = None
        self._finished = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, request: M) -> bool:
        """Waits while many requests wait. False where nobody takes them any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < MOST_WAITING)
            if self._closed or self._finished:
                return False
            self._waiting.append(request)
            self._changed.notify_all()
            return True

    def put_urgent(self, request: M) -> None:
        """Goes before all that waits, in place of an urgent one that was not taken yet."""
        with self._changed:
            self._urgent = request
            self._changed.notify_all()

    def finish(self) -> None:
        """Nothing more is given."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is taken: who waits goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[M]:
        return self

    def __next__(self) -> M:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._finished or self._next() is not None)
            request = None if self._closed else self._next()
            if request is None:
                raise StopIteration
            if request is self._first:
                self._first = None
            elif request is self._urgent:
                self._urgent = None
            else:
                self._waiting.popleft()
            self._changed.notify_all()
            return request

    def _next(self) -> M | None:
        # The first request opens the call: nothing goes before it.
        for request in (self._first, self._urgent):
            if request is not None:
                return request
        return self._waiting[0] if self._waiting else None
