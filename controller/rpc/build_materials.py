"""What is inside the artifacts."""

import asyncio
from typing import Any

from controller.builds.materials_store import MaterialsStore
from controller.builds.model import Build, BuildTarget
from controller.errors import NotFound
from controller.rpc.build_parts import BuildCalls, one_target
from longshore.errors import Reason
from longshore.v1 import build_pb2


class MaterialCalls(BuildCalls):
    """What is inside the artifacts."""

    async def GetBuildMaterials(
        self, request: build_pb2.GetBuildMaterialsRequest, context: Any
    ) -> build_pb2.GetBuildMaterialsResponse:
        build = await self._visible(request.build_id)
        target = one_target(build, request.target)
        assert self._parts.materials is not None
        document = await asyncio.to_thread(_read, self._parts.materials, build, target)
        if document is None:
            raise NotFound(
                Reason.NO_MATERIALS,
                f"target {target.key} of build {build.id} is {target.state} and has no bill of materials; it has one "
                "once it has succeeded",
            )
        return build_pb2.GetBuildMaterialsResponse(document=document)


def _read(store: MaterialsStore, build: Build, target: BuildTarget) -> bytes | None:
    """An artifact that another build made has its bill there."""
    own = store.read(build.id, target.key)
    if own is None and target.cached_from:
        return store.read(target.cached_from, target.key)
    return own
