"""Where builds run."""

from typing import Any

from controller.builds.hosts import BuilderHost
from controller.rpc.build_parts import BuildCalls
from controller.rpc.convert import timestamp
from longshore.v1 import build_pb2


class HostCalls(BuildCalls):
    """Where builds run."""

    async def ListBuilderHosts(
        self, request: build_pb2.ListBuilderHostsRequest, context: Any
    ) -> build_pb2.ListBuilderHostsResponse:
        hosts = () if self._parts.pool is None else self._parts.pool.hosts
        return build_pb2.ListBuilderHostsResponse(hosts=map(_host_to, hosts))


def _host_to(host: BuilderHost) -> build_pb2.BuilderHost:
    return build_pb2.BuilderHost(
        name=host.name,
        address=host.place.address,
        native_platforms=sorted(host.abilities.native),
        emulated_platforms=sorted(host.abilities.emulated),
        slots=host.slots,
        running=host.running,
        condition=host.condition,
        last_seen=timestamp(host.last_seen),
    )
