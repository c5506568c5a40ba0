"""What the calls of BuildService work with. One class a group of calls; `build_servicer.BuildServicer` joins them."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.builds.contexts import Contexts
from controller.builds.hosts import BuilderPool
from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import Build, BuildTarget
from controller.builds.service import BuildService
from controller.builds.targets import TargetProfile
from controller.builds.uploads import UploadStore
from controller.errors import InvalidRequest, NotFound
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
    contexts: Contexts | None = None


class BuildCalls:
    """Base of each group of calls."""

    def __init__(self, parts: BuildParts) -> None:
        self._parts = parts

    async def _visible(self, build_id: str) -> Build:
        """The build, where the caller may see it. Raises NotFound."""
        build = await self._parts.builds.get(build_id)
        require_visible(build.user_id, Reason.NO_SUCH_BUILD, f"no build {build_id}")
        return build


def one_target(build: Build, key: str) -> BuildTarget:
    """The target of this key, which may be "" where there is only one. Raises InvalidRequest and NotFound."""
    known = ", ".join(target.key for target in build.targets)
    if not key and len(build.targets) > 1:
        raise InvalidRequest("target", f"build {build.id} has several targets; name one of {known}")
    found = next((target for target in build.targets if key in ("", target.key)), None)
    if found is None:
        raise NotFound(Reason.NO_SUCH_TARGET, f"build {build.id} has no target {key}; it has {known}")
    return found
