"""What it brings to build the targets of one request beside each other, through the queue of a controller.

The same request, whose targets are of two architectures and so share neither base nor packages nor layers, goes to
two controllers: one builds a target at a time, the other all at once. Every round has a new working directory and new
code in the images, so that no layer comes from a cache; bases and downloaded packages lie there. Time runs from the
call until the build has ended, joining under one index included. The two take turns in going first.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import yaml

from controller.local.stack import LocalStack
from controller.settings import Builds
from longshore.client import Client, project
from longshore.v1 import build_pb2
from tests.support.building import BASE_CACHE

ROUNDS = 5
TARGETS = ("x86-cpu", "arm64-cpu")
BASE = "python:3.11-slim-bookworm"
PACKAGES = {"apt": ["libgomp1", "libjpeg62-turbo"], "pypi": ["click", "rich", "httpx"]}
PROJECT = project("alice", "bench")
WAYS = {"sequential": 1, "parallel": len(TARGETS)}


def main() -> str:
    """Runs the rounds; the line with the result."""
    return asyncio.run(_measure())


async def _measure() -> str:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    async with contextlib.AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="longshore-bench-", dir="/var/tmp")))
        clients = {way: await stack.enter_async_context(_controller(root / way, WAYS[way])) for way in WAYS}
        for number in range(ROUNDS + 1):
            for way in WAYS if number % 2 else reversed(WAYS):
                seconds = await asyncio.to_thread(_build, clients[way], root, f"round-{number}")
                print(f"{way}: {seconds:.1f} s{'' if number else ', not counted'}", flush=True)
                times[way] += [seconds] if number else []
    serial, parallel = (statistics.median(times[way]) for way in WAYS)
    return (
        f"parallel_targets: ratio={parallel / serial:.2f} parallel_s={parallel:.1f} sequential_s={serial:.1f} "
        f"targets={len(TARGETS)} rounds={ROUNDS}"
    )


@contextlib.asynccontextmanager
async def _controller(folder: Path, parallel: int) -> AsyncIterator[Client]:
    """A client of a controller that builds so many targets at a time."""
    builds = Builds(base_cache=BASE_CACHE, reuse_hours=0, parallel=parallel, parallel_per_user=parallel)
    async with LocalStack(folder, builds=builds) as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        with Client(context["address"], context["token"], context["ca"]) as client:
            yield client


def _build(client: Client, folder: Path, name: str) -> float:
    """Seconds until the build of all targets has succeeded."""
    (folder / "server.py").write_text(f"print('{name}')\n")
    deploy = {"entrypoint": ["python3", "server.py"], "network": {"ports": [{"name": "http", "container": 80}]}}
    build = {"base": BASE, "workdir": f"/srv/{name}", "files": ["server.py"], "packages": PACKAGES}
    spec = {"version": 1, "name": "parallel", "build": build, "deploy": deploy}
    path = folder / "deployment.yml"
    path.write_text(yaml.safe_dump({**spec, "targets": [{"profile": profile} for profile in TARGETS]}))
    begin = time.perf_counter()
    made = client.wait_for_build(client.build(path, PROJECT, files=["server.py"]).id, timeout=1800)
    if made.state != build_pb2.BUILD_STATE_SUCCEEDED:
        raise RuntimeError(f"{made.reason}: {made.message}")
    return time.perf_counter() - begin
