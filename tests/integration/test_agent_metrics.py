"""What an agent tells of its instances' use, over the fake backend."""

import asyncio
from collections.abc import Collection, Mapping

from google.protobuf.message import Message

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.facts.found import Accelerator
from edge_agent.runtime.facts.use import Use
from edge_agent.runtime.fake_backend import FakeBackend, FakeImage
from edge_agent.runtime.metrics import MetricsPublisher
from longshore.topics import Topic
from longshore.v1 import mqtt_pb2, types_pb2
from tests.support.async_waiting import until
from tests.support.workloads import make_workload


class Outlet:
    def __init__(self) -> None:
        self.connected = True
        self.said: list[mqtt_pb2.Metrics] = []

    def publish(self, topic: Topic, message: Message) -> bool:
        assert topic is Topic.METRICS
        assert isinstance(message, mqtt_pb2.Metrics)
        self.said.append(message)
        return True


class Uses:
    async def given_by(self, devices: Collection[str]) -> Mapping[Accelerator, Use]:
        given = Accelerator("acme.com/tpu", "TPU", cdi=("acme.com/tpu=0",))
        other = Accelerator("acme.com/tpu", "another one", cdi=("acme.com/tpu=1",))
        assert devices == {"acme.com/tpu=0"}
        return {given: Use(40, 7), other: Use(50)}


def status(deployment_id: str, state: types_pb2.InstanceState.ValueType) -> types_pb2.InstanceStatus:
    return types_pb2.InstanceStatus(deployment_id=deployment_id, revision=3, state=state)


async def test_running_instances_are_measured_and_those_that_cannot_be_are_left_out() -> None:
    backend, outlet = FakeBackend(), Outlet()
    wished = make_workload()
    backend.engine.add_image(wished.artifact.digest, FakeImage())
    await backend.prepare(wished, lambda _: None)
    handles = {wished.deployment_id: await backend.start(wished), "gone": Handle(1, "no such instance")}
    statuses = [
        status(wished.deployment_id, types_pb2.INSTANCE_STATE_RUNNING),
        status("gone", types_pb2.INSTANCE_STATE_RUNNING),
        status("unknown", types_pb2.INSTANCE_STATE_RUNNING),
        status("waiting", types_pb2.INSTANCE_STATE_BACKOFF),
    ]
    devices = {wished.deployment_id: ("acme.com/tpu=0",)}
    publisher = MetricsPublisher(
        outlet, backend, lambda: statuses, handles.get, lambda key: devices.get(key, ()), Uses(), period=0.01
    )
    telling = asyncio.create_task(publisher.run())
    await until(lambda: len(outlet.said) >= 2)
    (measured,) = outlet.said[-1].instances
    assert (measured.deployment_id, measured.revision) == (wished.deployment_id, 3)
    assert [(use.name, use.busy_percent, use.memory_kib) for use in measured.accelerators] == [("TPU", 40, 7)]
    assert measured.memory_peak_kib > measured.memory_kib > 0
    backend.engine.unavailable = "the engine is gone"
    said, asked = len(outlet.said), len(backend.engine.calls)
    await until(lambda: len(backend.engine.calls) > asked + 1)
    telling.cancel()
    assert len(outlet.said) == said
