"""Several devices at one controller: each with its own kind of agent, and its own bad network."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from controller.devices.reports import state_name
from controller.local.stack import LocalStack
from controller.settings import Builds
from longshore.client import Client
from longshore.v1 import deployment_pb2, event_pb2, mqtt_pb2
from tests.support.async_waiting import until_holds
from tests.support.broker_observer import BrokerObserver, onlooker, watch_broker
from tests.support.building import BASE_CACHE
from tests.support.device_network import DeviceNetwork
from tests.support.devices import SimulatedDevice
from tests.support.fault_site import KINDS
from tests.support.site import PROJECT, Site, spec_text, state_of
from tests.support.slow_link import SlowLink

WEIGHTS = "weights.bin"
# Where a network comes and goes, TCP may be silent for minutes after it has come back.
KEEPALIVE = "5"


@dataclass
class Member:
    """A device; `site` is the controller side as its test sees it."""

    site: Site
    cable: SlowLink
    device_id: str


@dataclass
class Feed:
    """The events of the project as `longshore events --follow` prints them from the beginning."""

    path: Path

    @property
    def events(self) -> list[event_pb2.Event]:
        lines = self.path.read_text().splitlines(keepends=True)
        return [json_format.Parse(line, event_pb2.Event()) for line in lines if line.endswith("\n")]

    def told_by(self, device_id: str) -> list[tuple[object, ...]]:
        instances = [event for event in self.events if event.device_id == device_id]
        return [(e.deployment_id, e.revision, e.state, e.ready, e.reason, e.message) for e in instances]


@dataclass
class Fleet:
    stack: LocalStack
    client: Client
    observer: BrokerObserver
    members: Mapping[str, Member]
    feed: Feed

    @property
    def any_site(self) -> Site:
        return next(iter(self.members.values())).site

    def set_profiles(self, profiles: Mapping[str, str]) -> None:
        for name, profile in profiles.items():
            self.members[name].cable.set(profile)

    async def build(self, text: str, size: int) -> str:
        """The artifacts of a spec, with so many bytes that no other has; the build's id."""
        path = self._written(text)
        (path.parent / WEIGHTS).write_bytes(os.urandom(size))
        built = await asyncio.to_thread(self.client.build, path, PROJECT, files=["server.py", WEIGHTS])
        ended = await asyncio.to_thread(self.client.wait_for_build, built.id, timeout=240)
        assert all(target.artifact.digest for target in ended.targets), ended
        return str(built.id)

    async def deploy(self, text: str, build_id: str) -> deployment_pb2.Deployment:
        path = self._written(text)
        (path.parent / WEIGHTS).write_bytes(b"")
        answer = await asyncio.to_thread(self.client.deploy, path, PROJECT, build_id=build_id)
        deployment: deployment_pb2.Deployment = answer.deployment
        return deployment

    def _written(self, text: str) -> Path:
        return self.any_site.write(text)

    async def runs_everywhere(self, deployment: deployment_pb2.Deployment, seconds: float) -> None:
        """READY, and each device has the present revision."""

        def so(found: deployment_pb2.GetDeploymentResponse) -> bool:
            return state_of(found) == "READY" and self._revisions(found) == [deployment.revision] * len(self.members)

        await self.any_site.eventually(deployment, so, seconds, f"revision {deployment.revision} on all devices")

    async def returned_everywhere(self, deployment: deployment_pb2.Deployment, seconds: float) -> None:
        """Each device has given this revision up, and what it had before is ready."""

        def so(found: deployment_pb2.GetDeploymentResponse) -> bool:
            reasons = {instance.status.reason for instance in found.instances}
            before = [deployment.revision - 1] * len(self.members)
            return reasons == {"RolledBack"} and self._revisions(found) == before

        await self.any_site.eventually(deployment, so, seconds, f"revision {deployment.revision} is given up")

    def _revisions(self, found: deployment_pb2.GetDeploymentResponse) -> list[int]:
        return [instance.status.revision for instance in found.instances if instance.status.ready]

    def events_are_whole(self) -> bool:
        """Whether the client has got everything that the devices have told so far. Fails where a number is missing, or
        comes twice, on the way from a device to the client."""
        numbers = [event.number for event in self.feed.events]
        assert numbers == list(range(1, len(numbers) + 1))
        assert self.observer.entries()
        return all(self._is_told(member.device_id) for member in self.members.values())

    def _is_told(self, device_id: str) -> bool:
        entries = {entry.number: entry for entry in self.observer.entries(device_id)}
        assert sorted(entries) == list(range(1, len(entries) + 1))
        said = [_told(entries[number]) for number in sorted(entries)]
        told = self.feed.told_by(device_id)
        assert told == said[: len(told)]
        return len(told) == len(said)


def _told(entry: mqtt_pb2.JournalEntry) -> tuple[object, ...]:
    it = entry.instance
    return (it.deployment_id, it.revision, state_name(it), it.ready, it.reason, it.message)


def spec(name: str, backends: Iterable[str] = KINDS, steps: Sequence[str] = (), **choices: Any) -> str:
    """As `spec_text`, for devices of these kinds, and with a large file; of an image, each step makes a layer."""
    wanted = yaml.safe_load(spec_text(name, **choices))
    wanted["targets"] = [{"profile": "x86-cpu", "artifact": KINDS[backend].artifact} for backend in backends]
    wanted["build"]["files"].append(WEIGHTS)
    if steps:
        wanted["build"]["steps"] = list(steps)
    return str(yaml.safe_dump(wanted))


@asynccontextmanager
async def running_fleet(folder: Path, backends: Mapping[str, str]) -> AsyncIterator[Fleet]:
    """A device for each name, with an enrolled agent of that backend, on a fast network."""
    network = DeviceNetwork.of_this_process()
    stack = LocalStack(folder / "controller", host=network.gateway, builds=Builds(base_cache=BASE_CACHE))
    watch_broker(stack)
    async with AsyncExitStack() as undo:
        await undo.enter_async_context(stack)
        context = yaml.safe_load(stack.context_file.read_text())
        client = undo.enter_context(Client(context["address"], context["token"], context["ca"]))
        observer = undo.enter_context(onlooker(stack))
        members = {
            name: await undo.enter_async_context(_member(folder / name, name, backend, stack, client))
            for name, backend in backends.items()
        }
        feed = await undo.enter_async_context(_followed(folder, stack))
        yield Fleet(stack, client, observer, members, feed)


@asynccontextmanager
async def _member(folder: Path, name: str, backend: str, stack: LocalStack, client: Client) -> AsyncIterator[Member]:
    cable = SlowLink()
    async with SimulatedDevice(folder / "device", cable=cable) as device:
        site = Site(folder, stack, device, client, program=KINDS[backend].program)
        await site.enroll(name)
        await site.start_agent({}, "--keepalive", KEEPALIVE)

        async def told_of_its_backend() -> bool:
            return bool((await site.call(client.get_device, name)).facts.backend)

        try:
            # Of one that has not told what it runs, the controller takes for granted that it runs images.
            await until_holds(told_of_its_backend, seconds=60)
            yield Member(site, cable, (await site.call(client.get_device, name)).id)
        finally:
            # What a bad network holds up is not waited for.
            await site.stop_agent(kill=True)


@asynccontextmanager
async def _followed(folder: Path, stack: LocalStack) -> AsyncIterator[Feed]:
    feed = Feed(folder / "events")
    command = [sys.executable, "-m", "controller.cli.main", "events", "-u", PROJECT.user_id, "-p", PROJECT.project_id]
    with feed.path.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, "--follow", "-o", "json", stdin=asyncio.subprocess.DEVNULL, stdout=output,
            env={**os.environ, "LONGSHORE_CONTEXT": str(stack.context_file)},
        )  # fmt: skip
    try:
        yield feed
    finally:
        process.kill()
        await process.wait()
