"""What is kept of builds: whole logs, images."""

from collections.abc import AsyncIterator
from typing import Any

from controller.rpc import convert
from controller.rpc.access import visible_user
from controller.rpc.build_parts import BuildCalls
from longshore.v1 import build_pb2


class RecordCalls(BuildCalls):
    """What is kept of builds: whole logs, images."""

    async def DownloadBuildLog(
        self, request: build_pb2.DownloadBuildLogRequest, context: Any
    ) -> AsyncIterator[build_pb2.DownloadBuildLogResponse]:
        await self._visible(request.build_id)

        async def ended() -> bool:
            return (await self._parts.builds.get(request.build_id)).ended > 0

        async for piece in self._parts.logs.download(request.build_id, ended):
            yield build_pb2.DownloadBuildLogResponse(data=piece)

    async def ListImages(self, request: build_pb2.ListImagesRequest, context: Any) -> build_pb2.ListImagesResponse:
        project = convert.project_from(request.project) if request.HasField("project") else None
        images, token = await self._parts.builds.images(project, visible_user(), convert.page_from(request.page))
        return build_pb2.ListImagesResponse(images=map(convert.image_to, images), next_page_token=token)
