"""Says in time that a disk fills up on which the agent depends: looked at often, since that costs nothing."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from edge_agent.runtime.disk import MIB, ROUNDED_TO, Space, in_mib, rounded, spaces

log = structlog.get_logger()

PERIOD = 30.0
# A disk is nearly full while less than this part of it is free, or less than this many bytes, but no more than a
# quarter of a small one.
LEAST_PART, LEAST_BYTES, SMALL_PART = 0.05, 256 * MIB, 0.25
# It is not any more when so much more is free.
RECOVERED = 1.25


class DiskWatch:
    """`folders` answers where the agent writes: its state, and the artifacts. `tell` is given the problem whenever that
    is another one, empty for none."""

    def __init__(
        self, folders: Callable[[], Iterable[Path]], tell: Callable[[str], None], period: float = PERIOD
    ) -> None:
        self._folders = folders
        self._tell = tell
        self._period = period
        self._low: dict[Path, int] = {}
        self._told = ""

    async def run(self) -> None:
        """For ever."""
        while True:
            self.look()
            await asyncio.sleep(self._period)

    def look(self) -> None:
        low: dict[Path, int] = {}
        said = []
        for space in spaces(self._folders()):
            before = self._low.get(space.path)
            if space.free < least(space) * (RECOVERED if before is not None else 1):
                low[space.path] = rounded(space.free, before)
                said.append(_described(space, low[space.path]))
        self._low = low
        problem = f"DiskNearlyFull: {'; '.join(said)}; what runs goes on; free space on this device" if said else ""
        if problem != self._told:
            log.warning("disk_space", problem=problem or "none any more")
            self._told = problem
            self._tell(problem)


def least(space: Space) -> int:
    """So many bytes have to be free."""
    return round(max(space.size * LEAST_PART, min(LEAST_BYTES, space.size * SMALL_PART)))


def _described(space: Space, free: int) -> str:
    # What is told stays for twice as long as it is rounded to, see `rounded`.
    bound = ROUNDED_TO if space.free < ROUNDED_TO else 2 * ROUNDED_TO
    amount = in_mib(free) if free else f"less than {in_mib(bound)}"
    return f"{amount} of {in_mib(space.size)} are free at {space.path}, {in_mib(least(space))} should be"
