"""What is inside the artifacts."""

from typing import Any

from controller.rpc.build_parts import BuildCalls
from longshore.v1 import build_pb2


class MaterialCalls(BuildCalls):
    """What is inside the artifacts."""

    async def GetBuildMaterials(
        self, request: build_pb2.GetBuildMaterialsRequest, context: Any
    ) -> build_pb2.GetBuildMaterialsResponse:
        raise NotImplementedError
