"""What the backend asks of that which runs processes."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from baremetal_agent.virtualenv.confinement import Confinement
from baremetal_agent.virtualenv.instances import Ended, Instance, Started
from baremetal_agent.virtualenv.layout import Layout
from edge_agent.runtime.backend import LogLine, LogQuery, Stats

LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Means:
    """What a launcher can do on this device; the words are those of `Capabilities`."""

    limits: frozenset[str]
    limits_by: str
    isolation: str
    supervision: str
    # Why there is no isolation; empty where there is some.
    lacking: str = ""


@dataclass(frozen=True)
class Launch:
    """All that is to be run. `layout` is as the workload is to see the device; `shown` are files and folders of the
    device that it has to see besides the system's."""

    instance: Instance
    layout: Layout
    confinement: Confinement
    shown: tuple[Path, ...] = ()


class Launcher(Protocol):
    """For one event loop. Instances run on without it."""

    @property
    def name(self) -> str:
        """Noted in each instance that it starts."""
        ...

    def group(self, owner: str, instance_id: str) -> str:
        """The name of the control group of a new instance."""
        ...

    async def means(self) -> Means:
        """Looked up once, and again for as long as there is no isolation."""
        ...

    async def start(self, launch: Launch) -> Started:
        """Afterwards it runs, and who it is stands in its folder; it may have ended since. Raises BackendError, and
        then nothing of it is left but the folder."""
        ...

    async def attend(self, instance: Instance) -> Ended | None:
        """How it ended, or None while it runs. Whoever watched over it and was killed is replaced."""
        ...

    def watch(self, instance: Instance) -> int | None:
        """A pidfd of a process that ends right after how the instance ended was noted; None where it has ended."""
        ...

    async def kill(self, instance: Instance) -> None:
        """No process of it is left soon."""
        ...

    async def clear(self, instance: Instance) -> None:
        """Nothing of it is left outside its folder. It does not run."""
        ...

    async def leave(self) -> None:
        """Nothing is left on the device of what instances had in common. There are none any more."""
        ...

    def logs(self, instance: Instance, query: LogQuery) -> AsyncGenerator[LogLine, None]: ...

    def entering(self, instance: Instance, started: Started, command: Sequence[str], *, terminal: bool) -> list[str]:
        """The command line that runs the command inside, in the terminal that is its standard input if it is to."""
        ...

    def processes(self, instance: Instance, started: Started) -> Iterable[int]:
        """Numbers of all of its processes."""
        ...

    def stats(self, instance: Instance, started: Started) -> Stats: ...

    def close(self) -> None:
        """Nothing is left of it but the instances."""
        ...
