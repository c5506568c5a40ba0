"""What housekeeping keeps in order."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import RegistryAccess
from controller.builds.uploads import UploadStore
from controller.housekeeping.journal import Journal
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.space import Space
from controller.store import Store
from controller.volumes.gate import PushGate


class Builders(Protocol):
    """Whoever builds on this machine."""

    @property
    def busy(self) -> bool:
        """Whether anything is made that may use what lies on this machine."""
        ...

    @property
    def untidy(self) -> bool:
        """Whether builds have left something that can go only when none runs."""
        ...

    def resting(self) -> AbstractAsyncContextManager[None]:
        """Nothing is made on this machine in the block: what runs ends before, and nothing begins."""
        ...


class NoBuilders:
    """Nobody builds."""

    busy = untidy = False

    def resting(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


@dataclass(frozen=True)
class Estate:
    """`registry`: where the registry has its data, if it is ours; `collect` lets it free what nothing names any more.
    It is called only when nothing builds. `pushes`: of project volumes."""

    store: Store
    uploads: UploadStore
    logs: BuildLogs
    materials: MaterialsStore
    layers: LayerCache
    access: RegistryAccess
    journal: Journal
    registry: Path = Path("/nonexistent")
    collect: Callable[[], Awaitable[None]] | None = None
    builders: Builders = field(default_factory=NoBuilders)
    pushes: PushGate = field(default_factory=PushGate)
    space: Space = field(default_factory=lambda: Space({}, 0))
