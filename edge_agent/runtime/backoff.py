"""Delays between tries: growing, capped, and spread so that many devices do not come back at the same moment."""

import random


class Backoff:
    """`next()` gives the seconds to wait before the next try: evenly from 0 to a limit that doubles up to `cap`."""

    def __init__(self, first: float, cap: float, *, least: float = 0.1) -> None:
        self._first = first
        self._cap = cap
        self._least = least
        self._tries = 0

    def next(self) -> float:
        limit = min(self._cap, self._first * 2 ** min(self._tries, 30))
        self._tries += 1
        return max(self._least, random.uniform(0, limit))

    def reset(self) -> None:
        self._tries = 0


def jittered(seconds: float) -> float:
    """About so many seconds: a tenth more or less."""
    return seconds * random.uniform(0.9, 1.1)
