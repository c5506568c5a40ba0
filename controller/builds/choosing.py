"""Which builder host gets a build. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """A host as the choice sees it. `able`: nothing is known to be wrong with it."""

    name: str
    native: frozenset[str]
    emulated: frozenset[str]
    slots: int
    running: int
    able: bool = True

    def builds(self, platform: str) -> bool:
        return platform in self.native or platform in self.emulated

    @property
    def free(self) -> bool:
        return self.running < self.slots


def candidates(hosts: Sequence[Choice], platform: str, lost: Collection[str] = ()) -> list[Choice]:
    """Those that can build for the platform, busy or not, without those that have just been lost."""
    return [host for host in hosts if host.able and host.builds(platform) and host.name not in lost]


def choose(hosts: Sequence[Choice], platform: str, lost: Collection[str] = ()) -> Choice | None:
    """The host for a build now: a native one before one that emulates, then the least loaded; None while all that
    could are busy."""
    free = [host for host in candidates(hosts, platform, lost) if host.free]
    return min(free, key=lambda host: (platform not in host.native, host.running / host.slots), default=None)
