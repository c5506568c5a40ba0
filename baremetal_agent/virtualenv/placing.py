"""Where the processes of an instance are put: what limits them, and what becomes of them without the agent.

In control groups that the agent makes (here), or in units of systemd (`units`).
"""

from collections.abc import Sequence
from typing import Protocol

from baremetal_agent.virtualenv.cgroups import Cgroups, Joined, find_cgroups
from baremetal_agent.virtualenv.instances import Instance
from baremetal_agent.virtualenv.launcher import Launch
from baremetal_agent.virtualenv.supervised import limits_without_groups
from edge_agent.runtime.backend import BackendError

RLIMIT = "rlimit"


class Placing(Protocol):
    """Blocks for next to nothing but where it is awaited."""

    @property
    def name(self) -> str:
        """As `Capabilities` calls it, and noted in each instance."""
        ...

    @property
    def forks(self) -> bool:
        """Whether a supervisor may be any process of ours: `starting` changes nothing."""
        ...

    @property
    def cgroups(self) -> Cgroups:
        """The hierarchies in which the control groups of instances are."""
        ...

    def limits(self, isolation: str) -> tuple[frozenset[str], str]:
        """What can be limited, and by which means."""
        ...

    def group(self, owner: str, instance_id: str) -> str:
        """The name of its control group."""
        ...

    def prepare(self, launch: Launch) -> Joined:
        """All that has to be there before its supervisor is. Raises OSError."""
        ...

    def starting(self, launch: Launch, argv: Sequence[str]) -> Sequence[str]:
        """The command line that runs its supervisor's in the right place."""
        ...

    def replacing(self, instance: Instance, argv: Sequence[str]) -> Sequence[str]:
        """The same for another supervisor of what runs."""
        ...

    async def refusal(self, what: str, said: str) -> BackendError:
        """What it means that such a command line came to nothing, with its last words."""
        ...

    async def clear(self, instance: Instance) -> None:
        """Nothing is left of the place of an instance that does not run, nor of what hangs in it."""
        ...

    async def leave(self) -> None:
        """Nothing is left of what instances had in common, where there are none any more."""
        ...


class Groups:
    """`Placing` in control groups that the agent makes, if it may make any. Supervisors are children of whoever starts
    the agent once the stem that they were forked from has gone."""

    name = "supervisor"
    forks = True

    def __init__(self, cgroups: Cgroups) -> None:
        self.cgroups = cgroups

    def limits(self, isolation: str) -> tuple[frozenset[str], str]:
        if not self.cgroups.hierarchies:
            return limits_without_groups(isolation), RLIMIT
        return self.cgroups.controllers, f"cgroup-v{self.cgroups.version}"

    def group(self, owner: str, instance_id: str) -> str:
        return f"longshore-{owner}/{instance_id}"

    def prepare(self, launch: Launch) -> Joined:
        return self.cgroups.create(launch.instance.cgroup, launch.confinement.resources)

    def starting(self, launch: Launch, argv: Sequence[str]) -> Sequence[str]:
        return argv

    def replacing(self, instance: Instance, argv: Sequence[str]) -> Sequence[str]:
        return argv

    async def refusal(self, what: str, said: str) -> BackendError:
        return start_failed(what, said)

    async def clear(self, instance: Instance) -> None:
        await self.cgroups.remove(instance.cgroup)

    async def leave(self) -> None:
        """Groups go with the last instance."""


def start_failed(what: str, why: str) -> BackendError:
    """Of one start, that may succeed later."""
    return BackendError("StartFailed", f"cannot start {what}: {why}", retryable=True)


def own_groups() -> Groups:
    return Groups(find_cgroups())
