"""What is inside the artifacts."""

import asyncio
from typing import Any

from controller.builds.materials_store import MaterialsStore
from controller.builds.model import Build, BuildTarget
from controller.errors import InvalidRequest, NotFound
from controller.rpc.build_parts import BuildCalls
from longshore.errors import Reason
from longshore.v1 import build_pb2


class MaterialCalls(BuildCalls):
    """What is inside the artifacts."""

    async def GetBuildMaterials(
        self, request: build_pb2.GetBuildMaterialsRequest, context: Any
    ) -> build_pb2.GetBuildMaterialsResponse:
        build = await self._visible(request.build_id)
        target = _target(build, request.target)
        assert self._parts.materials is not None
        document = await asyncio.to_thread(_read, self._parts.materials, build, target)
        if document is None:
            raise NotFound(
                Reason.NO_MATERIALS,
                f"target {target.key} of build {build.id} is {target.state} and has no bill of materials; it has one "
                "once it has succeeded",
            )
        return build_pb2.GetBuildMaterialsResponse(document=document)


def _target(build: Build, key: str) -> BuildTarget:
    """The target of this key, which may be left out where there is only one."""
    if not key and len(build.targets) > 1:
        raise InvalidRequest("target", f"the build has several: {', '.join(each.key for each in build.targets)}")
    for target in build.targets:
        if key in ("", target.key):
            return target
    raise NotFound(Reason.NO_SUCH_TARGET, f"build {build.id} has no target {key}")


def _read(store: MaterialsStore, build: Build, target: BuildTarget) -> bytes | None:
    """An artifact that another build made has its bill there."""
    own = store.read(build.id, target.key)
    if own is None and target.cached_from:
        return store.read(target.cached_from, target.key)
    return own
