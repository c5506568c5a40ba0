"""Which builder host gets a build. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """A host as the choice sees it. `able`: nothing is known to be wrong with it. `laid_out`: platforms for which it
    makes only images of which nothing has to run."""

    name: str
    native: frozenset[str]
    emulated: frozenset[str]
    slots: int
    running: int
    able: bool = True
    laid_out: frozenset[str] = frozenset()

    def runs(self, platform: str) -> bool:
        return platform in self.native or platform in self.emulated

    @property
    def free(self) -> bool:
        return self.running < self.slots


def candidates(hosts: Sequence[Choice], platform: str, lost: Collection[str] = ()) -> list[Choice]:
    """Those that can build for the platform, busy or not, without those that have just been lost. One that runs nothing
    for the platform counts only where no other does: whether something has to run is not known before the build."""
    able = [host for host in hosts if host.able and host.name not in lost]
    return [host for host in able if host.runs(platform)] or [host for host in able if platform in host.laid_out]


def choose(hosts: Sequence[Choice], platform: str, lost: Collection[str] = ()) -> Choice | None:
    """The host for a build now: a native one before one that emulates, then the least loaded; None while all that
    could are busy."""
    free = [host for host in candidates(hosts, platform, lost) if host.free]
    return min(free, key=lambda host: (platform not in host.native, host.running / host.slots), default=None)
