"""What can be asked for: target profiles, runtimes, the form."""

from typing import Any

from controller.rpc.build_parts import BuildCalls
from longshore.v1 import build_pb2


class CatalogueCalls(BuildCalls):
    """What can be asked for: target profiles, runtimes, the form."""

    async def ListTargetProfiles(
        self, request: build_pb2.ListTargetProfilesRequest, context: Any
    ) -> build_pb2.ListTargetProfilesResponse:
        raise NotImplementedError

    async def ListRuntimes(
        self, request: build_pb2.ListRuntimesRequest, context: Any
    ) -> build_pb2.ListRuntimesResponse:
        raise NotImplementedError

    async def GetBuildForm(
        self, request: build_pb2.GetBuildFormRequest, context: Any
    ) -> build_pb2.GetBuildFormResponse:
        raise NotImplementedError
