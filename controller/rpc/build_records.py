"""What is kept of builds: whole logs, images."""

from collections.abc import AsyncIterator
from typing import Any

from controller.rpc.build_parts import BuildCalls
from longshore.v1 import build_pb2


class RecordCalls(BuildCalls):
    """What is kept of builds: whole logs, images."""

    async def DownloadBuildLog(
        self, request: build_pb2.DownloadBuildLogRequest, context: Any
    ) -> AsyncIterator[build_pb2.DownloadBuildLogResponse]:
        for _ in ():
            yield _
        raise NotImplementedError

    async def ListImages(self, request: build_pb2.ListImagesRequest, context: Any) -> build_pb2.ListImagesResponse:
        raise NotImplementedError
