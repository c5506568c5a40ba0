"""A whole controller whose disk is full for a while."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.local.stack import LocalStack
from edge_agent.runtime.enrollment import EnrollmentRequest, enroll
from edge_agent.runtime.farewell import tell_controller
from edge_agent.runtime.identity import Identity
from longshore.client import Client, project
from longshore.errors import Reason
from longshore.failures import LongshoreError
from longshore.topics import Topic
from longshore.v1 import device_pb2, event_pb2, mqtt_pb2
from tests.support.async_waiting import until
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.talking_device import TalkingDevice
from tests.support.waiting import eventually

PROJECT = project("alice", "tests")
SPEC = """\
version: 1
name: {name}
build: {{base: "registry.invalid/nothing:1"}}
deploy:
  entrypoint: [serve]
  network: {{ports: [{{name: http, container: 8080}}]}}
targets: [{{profile: x86-cpu}}]
"""


@dataclass(frozen=True)
class Side:
    """A controller with its registry and broker, all on the small disk."""

    folder: Path
    disk: SmallDisk
    stack: LocalStack
    client: Client

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    async def refused(self) -> str:
        """Why the controller takes nothing that is new, once it does not."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await asyncio.to_thread(self.client.create_enroll_token)
                except LongshoreError as error:
                    return error.reason

    async def enroll(self, name: str) -> Identity:
        token = (await self.call(self.client.create_enroll_token)).token
        facts = device_pb2.DeviceFacts(architecture="amd64")
        return await enroll(self.folder / name, EnrollmentRequest(token, facts, name, "x86-cpu"))

    async def deploy(self, name: str) -> str:
        """Its id. Its build finds no base, and is tried again and again."""
        path = self.folder / f"{name}.yml"
        path.write_text(SPEC.format(name=name))
        return str((await self.call(self.client.deploy, path, PROJECT)).deployment.id)

    def offline(self) -> bool:
        return self.client.get_device("edge").presence == device_pb2.DEVICE_PRESENCE_OFFLINE

    def said(self, deployment_id: str) -> list[str]:
        events = self.client.watch_events(PROJECT, deployment_id=deployment_id)
        return [event.message for event in events if event.kind == event_pb2.EVENT_KIND_INSTANCE]


@pytest.mark.podman
async def test_a_controller_whose_disk_is_full_for_a_while_goes_on_and_has_lost_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 96) as disk:
        async with LocalStack(disk.path / "controller", min_free_mib=0) as stack:
            context = yaml.safe_load(stack.context_file.read_text())
            with Client(context["address"], context["token"], context["ca"]) as client:
                await full_for_a_while(Side(tmp_path, disk, stack, client))


async def full_for_a_while(side: Side) -> None:
    pid = side.stack.controller.pid
    kept, unwanted = await side.deploy("kept"), await side.deploy("unwanted")
    device, leaving = await side.call(TalkingDevice, await side.enroll("edge")), await side.enroll("leaving")
    device.say(Topic.PRESENCE, mqtt_pb2.Presence(online=True, session=1))
    device.journal(1, kept)
    await until(lambda: device.acknowledged == [1], seconds=30)

    side.disk.fill()
    assert await side.refused() == Reason.NOT_STORED
    for number in (2, 3):
        device.journal(number, kept)
    device.say(Topic.PRESENCE, mqtt_pb2.Presence(online=False, session=1))
    # What frees space is done, and what changes nothing too.
    await side.call(side.client.delete, unwanted)
    assert await side.call(tell_controller, leaving) == ""
    listed = await side.call(lambda: [each.name for each in side.client.list_deployments(PROJECT)])
    assert listed == ["kept"]
    assert await side.call(side.said, kept) == ["entry 1"]
    assert await side.refused() == Reason.NOT_STORED
    assert device.acknowledged == [1]

    side.disk.free_again()
    await until(lambda: device.acknowledged[-1] == 3, seconds=30)
    assert await side.call(side.said, kept) == ["entry 1", "entry 2", "entry 3"]
    await side.call(eventually, side.offline)
    assert await side.deploy("after")
    device.leave()
    assert (side.stack.controller.running, side.stack.controller.pid) == (True, pid)
    assert "Traceback" not in side.stack.controller.log_file.read_text()
