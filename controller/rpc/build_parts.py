"""What the calls of BuildService work with. One class a group of calls; `build_servicer.BuildServicer` joins them."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.builds.hosts import BuilderPool
from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import Build
from controller.builds.service import BuildService
from controller.builds.targets import TargetProfile
from controller.builds.uploads import UploadStore
from controller.rpc.access import require_visible
from longshore.errors import Reason


@dataclass(frozen=True)
class BuildParts:
    """The parts of the controller behind BuildService."""

    builds: BuildService
    uploads: UploadStore
    logs: BuildLogs
    profiles: Mapping[str, TargetProfile]
    pool: BuilderPool | None = None
    materials: MaterialsStore | None = None


class BuildCalls:
    """Base of each group of calls."""

    def __init__(self, parts: BuildParts) -> None:
        self._parts = parts

    async def _visible(self, build_id: str) -> Build:
        """The build, where the caller may see it. Raises NotFound."""
        build = await self._parts.builds.get(build_id)
        require_visible(build.user_id, Reason.NO_SUCH_BUILD, f"no build {build_id}")
        return build
