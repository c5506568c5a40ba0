"""Waiting for what should become true, with a deadline."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], *, seconds: float = 10, why: str = "") -> None:
    """Returns as soon as `condition` is true; a condition that cannot be asked yet (OSError) counts as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s{': ' if why else ''}{why}")
        time.sleep(0.02)
