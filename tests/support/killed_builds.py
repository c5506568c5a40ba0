"""Builds whose controller is killed while they are at some step: what has to hold afterwards."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.local.stack import LocalStack
from controller.settings import Builds
from longshore.client import Client, project
from longshore.v1 import build_pb2
from tests.support.building import BASE_CACHE, SMALL_BASE

PROJECT = project("alice", "kills")
STEPS = ("QUEUED", "PREPARING", "BUILDING", "PUSHING")
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass
class KilledController:
    """A controller with a real builder and registry, and what a client sees of it."""

    folder: Path
    stack: LocalStack
    client: Client

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(lambda: function(*args, **kwargs))

    async def begin(self, name: str, *, seconds: float = 0.0, profiles: tuple[str, ...] = ("x86-cpu",)) -> str:
        """Id of a build of small images; one of its steps takes so long."""
        deploy = {"entrypoint": ["sleep", "1000"], "network": {"ports": [{"name": "http", "container": 80}]}}
        build = {"base": SMALL_BASE, "steps": [f"sleep {seconds:.1f}; echo {name} > /made"], "tags": [name]}
        targets = [{"profile": profile} for profile in profiles]
        path = self.folder / f"{name}.yml"
        path.write_text(
            yaml.safe_dump({"version": 1, "name": name, "build": build, "deploy": deploy, "targets": targets})
        )
        made: build_pb2.Build = await self.call(self.client.build, path, PROJECT)
        return made.id

    async def found(self, build_id: str) -> build_pb2.Build:
        answer: build_pb2.Build = await self.call(self.client.get_build, build_id)
        return answer

    async def reaches(self, build_id: str, *states: str, seconds: float = 120) -> build_pb2.Build:
        """The build once it is, or was seen to have passed, one of these states."""
        return await self.comes_to(lambda build: state_of(build) in (*states, *ENDED), build_id, seconds)

    async def comes_to(
        self, holds: Callable[[build_pb2.Build], bool], build_id: str, seconds: float = 120
    ) -> build_pb2.Build:
        end = time.monotonic() + seconds
        while not holds(build := await self.found(build_id)):
            assert time.monotonic() < end, f"{build}\n{self.log()}"
            await asyncio.sleep(0.02)
        return build

    async def restart(self) -> None:
        """As after a crash: nothing of the old one had a chance to end anything."""
        await self.stack.controller.kill()
        await self.stack.start_controller()

    async def ends_once(self, build_id: str) -> build_pb2.Build:
        """The build once it has succeeded, with one result for each target and events without a gap."""
        build = await self.reaches(build_id, "SUCCEEDED")
        assert state_of(build) == "SUCCEEDED", f"{build}\n{self.log()}"
        assert all(target.artifact.digest for target in build.targets)
        events = [event async for event in self._events()]
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        of_build = [event for event in events if event.build_id == build_id]
        ends = Counter(event.message for event in of_build if event.state in ENDED)
        assert {ends[target.key] for target in build.targets} == {1}, ends
        lines = await self.call(lambda: list(self.client.read_build_log(build_id)))
        assert [line.line.number for line in lines] == list(range(1, len(lines) + 1))
        return build

    async def _events(self) -> AsyncIterator[Any]:
        for event in await self.call(lambda: list(self.client.watch_events(PROJECT))):
            yield event

    def log(self) -> str:
        """The end of the controller's log, for a test that fails."""
        return (self.stack.folder.root / "controller.log").read_text()[-3000:]

    def leftovers(self) -> list[str]:
        """Folders of builds that no build uses any more."""
        return [path.name for path in (self.stack.folder.root / "builder").glob("tmp/build-*")]


def state_of(build: build_pb2.Build) -> str:
    return build_pb2.BuildState.Name(build.state).removeprefix("BUILD_STATE_")


@asynccontextmanager
async def killed_controller(folder: Path) -> AsyncIterator[KilledController]:
    builds = Builds(base_cache=BASE_CACHE, reuse_hours=0)
    async with LocalStack(folder / "controller", builds=builds) as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        with Client(context["address"], context["token"], context["ca"]) as client:
            yield KilledController(folder, stack, client)
