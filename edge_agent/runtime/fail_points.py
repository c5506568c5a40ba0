"""Places in the agent's work at which a test lets it die, as a power cut or `kill -9` may at any of them.

`LONGSHORE_FAIL_POINT=start.started` ends the process the first time it gets there, `start.started:3` the third time.
Unset, which it is but in tests, a place costs nothing.
"""

import os
import signal
from collections import Counter

VARIABLE = "LONGSHORE_FAIL_POINT"

# In the order in which a workload meets them. Each is reached somewhere, and tested: tests/faults/test_fail_points.py.
# Each kind of step has its begin and its done.
POINTS = (
    "desired.received",
    "desired.stored",
    "prepare.begin",
    "fetch.begun",
    "fetch.arrived",
    "fetch.unpacked",
    "prepare.fetched",
    "prepare.done",
    "start.begin",
    "start.gathered",
    "start.described",
    "start.created",
    "start.started",
    "start.done",
    "adopt.seen",
    "adopt.noted",
    "recover.begin",
    "recover.done",
    "stop.begin",
    "stop.noted",
    "stop.stopped",
    "stop.done",
    "giveup.begin",
    "giveup.noted",
    "giveup.done",
    "account.begin",
    "account.done",
    "remove.begin",
    "remove.cleared",
    "remove.done",
    "forget.begin",
    "forget.cleared",
    "forget.done",
    "journal.append",
    "journal.appended",
    "journal.published",
    "journal.acknowledged",
    "journal.settled",
)

_passed: Counter[str] = Counter()


def reach(point: str) -> None:
    """Does nothing, unless a test wants the process to end here."""
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return
    name, _, times = wanted.partition(":")
    if name == point:
        _passed[point] += 1
        if _passed[point] >= int(times or 1):
            os.kill(os.getpid(), signal.SIGKILL)
