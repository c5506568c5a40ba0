"""What would be built: Containerfiles, and whole build contexts."""

from collections.abc import AsyncIterator
from typing import Any

from controller.rpc.build_parts import BuildCalls
from longshore.v1 import build_pb2


class PreviewCalls(BuildCalls):
    """What would be built: Containerfiles, and whole build contexts."""

    async def RenderBuild(self, request: build_pb2.RenderBuildRequest, context: Any) -> build_pb2.RenderBuildResponse:
        raise NotImplementedError

    async def DownloadBuildContext(
        self, request: build_pb2.DownloadBuildContextRequest, context: Any
    ) -> AsyncIterator[build_pb2.DownloadBuildContextResponse]:
        for _ in ():
            yield _
        raise NotImplementedError
