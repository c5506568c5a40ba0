"""What the queue works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import ArtifactKind, BuildResult, OnLine, OnState, TargetJob
from controller.builds.reuse import Reuse
from controller.builds.targets import TargetProfile
from controller.sealing import SecretBox
from controller.store import Store


class Builder(Protocol):
    """What the queue needs of whoever builds."""

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        """Whether a build for this profile could begin now. Asked on the event loop; never blocks. The queue lets one
        build after another begin: it asks again only when the last one has come to its first await in `build`."""
        ...

    def on_free(self, listener: Callable[[], None]) -> None:
        """From now on `listener` is called on the event loop whenever `takes` may have come to answer yes: a slot is
        free, a host is back. Hints: calls too many are harmless."""
        ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Builds and pushes. Raises BuildFailed, which leaves nothing behind; a cancel ends it at any moment, and when
        it has ended nothing of it runs or lies around. It counts for `takes` from its first step on."""
        ...

    async def recover(self) -> None:
        """Ends and removes what a killed controller left. Once, before the first build."""
        ...


@dataclass(frozen=True)
class Desk:
    """What attempts work with. `registry` is host:port; `retry_seconds` how long after its first try a target whose
    failure may pass is tried again."""

    store: Store
    builder: Builder
    logs: BuildLogs
    reuse: Reuse
    secrets: SecretBox
    materials: MaterialsStore
    profiles: Mapping[str, TargetProfile]
    registry: str
    retry_seconds: float
