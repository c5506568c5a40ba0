"""Builds whose controller is killed while they are at some step: what has to hold afterwards."""

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.builds.podman import Podman
from controller.local.stack import LocalStack
from controller.settings import Builds
from longshore.client import Client, project
from longshore.v1 import build_pb2
from tests.support.building import BASE_CACHE, SMALL_BASE, images_of, leftovers_of
from tests.support.registry import stored_in

PROJECT = project("alice", "kills")
STEPS = ("QUEUED", "PREPARING", "BUILDING", "PUSHING")
# As many as are built at a time.
PROFILES = ("x86-cpu", "x86-cuda")
MOST_TRIES = 10
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass
class KilledController:
    """A controller with a real builder and registry, and what a client sees of it."""

    folder: Path
    stack: LocalStack
    client: Client

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(lambda: function(*args, **kwargs))

    async def begin(
        self, name: str, *, seconds: float = 0.0, mebibytes: int = 0, profiles: tuple[str, ...] = ("x86-cpu",)
    ) -> str:
        """Id of a build of small images; one of its steps takes so long, and so much is to be pushed for it."""
        deploy = {"entrypoint": ["sleep", "1000"], "network": {"ports": [{"name": "http", "container": 80}]}}
        step = f"sleep {seconds:.1f}; echo {name} > /made; head -c {mebibytes}M /dev/urandom > /filler"
        build = {"base": SMALL_BASE, "steps": [step], "tags": [name]}
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
        """The build once it is in one of these states, or has ended."""
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

    async def kill_in(self, step: str, name: str, profiles: tuple[str, ...] = PROFILES) -> list[str]:
        """Ids of builds, of which the last was in this step when its controller was killed. Those before it had passed
        the step when the kill came. The next controller runs."""
        begun: list[str] = []
        async with self._slots_taken() if step == "QUEUED" else contextlib.nullcontext():
            for number in range(MOST_TRIES):
                mebibytes = 48 if step == "PUSHING" else 0
                made = await self.begin(f"{name}-{number}", seconds=0.5, mebibytes=mebibytes, profiles=profiles)
                begun.append(made)
                await self.reaches(made, step)
                await self.stack.controller.kill()
                states = self.stored_states(made)
                await self.stack.start_controller()
                if step in states:
                    return begun
        raise AssertionError(f"{MOST_TRIES} builds had passed {step} when the kill came\n{self.log()}")

    @asynccontextmanager
    async def _slots_taken(self) -> AsyncIterator[None]:
        """What is begun inside of the block waits."""
        taken = await self.begin(f"taken-{time.monotonic_ns()}", seconds=600, profiles=PROFILES)
        both = ["BUILDING"] * len(PROFILES)
        await self.comes_to(lambda build: [state_of(target) for target in build.targets] == both, taken)
        try:
            yield
        finally:
            await self.call(self.client.cancel_build, taken)
        await self.reaches(taken, "CANCELLED")

    def stored_states(self, build_id: str) -> set[str]:
        """Those of its targets, as a controller that was killed left them."""
        with contextlib.closing(sqlite3.connect(self.stack.folder.database)) as store:
            return {row[0] for row in store.execute("SELECT state FROM build_targets WHERE build_id = ?", (build_id,))}

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

    async def kept(self) -> tuple[set[str], set[str]]:
        """Ids of all images in the builder's storage, and all that the registry keeps."""
        root = self.stack.folder.root
        images = await asyncio.to_thread(images_of, Podman(root / "builder"))
        return images, await asyncio.to_thread(stored_in, root / "registry")

    async def leaves_nothing(self, seconds: float = 60) -> None:
        """Once no build runs there is no container, volume, file, mount or process of one."""
        root, end = self.stack.folder.root, time.monotonic() + seconds
        while left := [
            *await asyncio.to_thread(leftovers_of, Podman(root / "builder")),
            *map(str, (root / "bundles").glob("tmp/*")),
        ]:
            # A builder that is asked how it is has a process for a moment.
            assert time.monotonic() < end, f"{left}\n{self.log()}"
            await asyncio.sleep(0.2)


def state_of(build: build_pb2.Build | build_pb2.BuildTarget) -> str:
    return build_pb2.BuildState.Name(build.state).removeprefix("BUILD_STATE_")


@asynccontextmanager
async def killed_controller(folder: Path) -> AsyncIterator[KilledController]:
    builds = Builds(base_cache=BASE_CACHE, reuse_hours=0)
    async with LocalStack(folder / "controller", builds=builds) as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        with Client(context["address"], context["token"], context["ca"]) as client:
            yield KilledController(folder, stack, client)
