"""How long an identical request takes: from CreateBuild to a build that has SUCCEEDED, as a client sees both."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import grpc
import yaml

from controller.local.stack import LocalStack
from controller.settings import Builds
from longshore.client import Client, project
from longshore.sources import collect
from longshore.v1 import build_pb2, build_pb2_grpc
from tests.support.building import BASE_CACHE
from tests.support.site import SERVER, spec_text

ROUNDS = 30
PROJECT = project("alice", "bench")
ENDED = (build_pb2.BUILD_STATE_SUCCEEDED, build_pb2.BUILD_STATE_FAILED)


async def identical_ms(folder: Path) -> float:
    """The median over a controller of its own, whose builder makes the image once."""
    async with LocalStack(folder, builds=Builds(base_cache=BASE_CACHE)) as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        return await asyncio.to_thread(_measure, folder, context)


def _measure(folder: Path, context: dict[str, str]) -> float:
    (folder / "server.py").write_text(SERVER)
    (folder / "deployment.yml").write_text(spec_text("identical"))
    with Client(context["address"], context["token"], context["ca"]) as client:
        first = client.build(folder / "deployment.yml", PROJECT, files=["server.py"])
        made = client.wait_for_build(first.id, timeout=300)
        if made.state != build_pb2.BUILD_STATE_SUCCEEDED:
            raise RuntimeError(f"{made.reason}: {made.message}")
        entries = client.upload(collect(folder, ["server.py"]))
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(context["ca"].encode()), grpc.access_token_call_credentials(context["token"])
    )
    with grpc.secure_channel(context["address"], credentials) as channel:
        # The types of the generated stubs are those of asyncio.
        kind: Any = build_pb2_grpc.BuildServiceStub
        stub = kind(channel)
        request = build_pb2.CreateBuildRequest(project=PROJECT, spec=first.spec, files=entries)
        return statistics.median(_once(stub, request, first.id) for _ in range(ROUNDS)) * 1000


def _once(stub: Any, request: build_pb2.CreateBuildRequest, origin: str) -> float:
    begin = time.perf_counter()
    build = stub.CreateBuild(request).build
    while build.state not in ENDED:
        build = stub.GetBuild(build_pb2.GetBuildRequest(id=build.id)).build
    seconds = time.perf_counter() - begin
    if [target.cached_from for target in build.targets] != [origin]:
        raise RuntimeError(f"not answered from {origin}: {build}")
    return seconds
