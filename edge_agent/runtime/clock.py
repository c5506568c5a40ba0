"""The agent's two clocks."""

import time
from collections.abc import Callable

from edge_agent.runtime.record import Moment

Clock = Callable[[], Moment]


def system_clock() -> Moment:
    """Now, by the clock that never jumps and by the one that people read."""
    return Moment(time.monotonic(), time.time())
