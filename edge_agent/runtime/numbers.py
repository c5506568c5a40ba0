"""Numbers that grow for as long as a device has its identity: of its sessions and its status snapshots.

They outlive the agent's database, which may be lost: whoever has seen a greater number would drop all that follows.
So the number of the agent's run lies beside the identity, and where even that is gone the clock stands in for it.
"""

import time
from pathlib import Path

import structlog

from edge_agent.runtime.files import write_durably

log = structlog.get_logger()

FILE_NAME = "run-number"
# Numbers of one run: (run << RUN_BITS) + 0, 1, 2, ...; a run that has used all of them becomes the next run. Runs are
# at least seconds since 1970, so that the sum stays below 2**53, which every JSON reader takes.
RUN_BITS = 20


class GrowingNumbers:
    """`next()` is greater at each call, across restarts. One instance for a state folder and process."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._begin_run()

    def next(self) -> int:
        if self._used >> RUN_BITS:
            self._begin_run()
        self._used += 1
        return (self._run << RUN_BITS) + self._used - 1

    def _begin_run(self) -> None:
        self._run = max(self._stored() + 1, int(time.time()))
        self._used = 0
        try:
            write_durably(self._path, f"{self._run}\n".encode(), 0o600)
        except OSError as error:
            log.error("run_number_not_stored", path=str(self._path), error=str(error))

    def _stored(self) -> int:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return 0
