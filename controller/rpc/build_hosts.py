"""Where builds run."""

from typing import Any

from controller.rpc.build_parts import BuildCalls
from longshore.v1 import build_pb2


class HostCalls(BuildCalls):
    """Where builds run."""

    async def ListBuilderHosts(
        self, request: build_pb2.ListBuilderHostsRequest, context: Any
    ) -> build_pb2.ListBuilderHostsResponse:
        raise NotImplementedError
