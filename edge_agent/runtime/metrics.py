"""What the device's instances use, told over MQTT once a minute at QoS 0: what is lost is not sent again."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import structlog
from google.protobuf.message import Message

from edge_agent.runtime.backend import BackendError, DeployBackend, Handle
from edge_agent.runtime.facts.found import Accelerator
from edge_agent.runtime.facts.use import Use
from longshore.topics import Topic
from longshore.v1 import mqtt_pb2, types_pb2

log = structlog.get_logger()
PERIOD = 60.0


class Outlet(Protocol):
    @property
    def connected(self) -> bool: ...

    def publish(self, topic: Topic, message: Message) -> bool: ...


class Uses(Protocol):
    async def given_by(self, devices: Collection[str]) -> Mapping[Accelerator, Use]:
        """Of the accelerators that a workload gets by one of these devices, where anything tells."""
        ...


class MetricsPublisher:
    """`statuses` tells what runs, `handle_of` under which handle the backend knows it, `devices_of` which devices it is
    given."""

    def __init__(
        self,
        outlet: Outlet,
        backend: DeployBackend,
        statuses: Callable[[], Sequence[types_pb2.InstanceStatus]],
        handle_of: Callable[[str], Handle | None],
        devices_of: Callable[[str], Collection[str]],
        uses: Uses,
        period: float = PERIOD,
    ) -> None:
        self._outlet = outlet
        self._backend = backend
        self._statuses = statuses
        self._handle_of = handle_of
        self._devices_of = devices_of
        self._uses = uses
        self._period = period

    async def run(self) -> None:
        """For ever. Says nothing while nothing runs."""
        while True:
            await asyncio.sleep(self._period)
            if self._outlet.connected and (measured := await self._measure()):
                message = mqtt_pb2.Metrics(instances=measured)
                message.time.FromNanoseconds(time.time_ns())
                self._outlet.publish(Topic.METRICS, message)

    async def _measure(self) -> list[mqtt_pb2.InstanceMetrics]:
        running = [s for s in self._statuses() if s.state == types_pb2.INSTANCE_STATE_RUNNING]
        given = {status.deployment_id: self._devices_of(status.deployment_id) for status in running}
        uses = await self._uses.given_by({device for devices in given.values() for device in devices})
        found = [await self._measure_one(status) for status in running]
        for metrics in filter(None, found):
            devices = given[metrics.deployment_id]
            metrics.accelerators.extend(
                _use(one, use) for one, use in uses.items() if any(map(one.is_given_by, devices))
            )
        return [metrics for metrics in found if metrics is not None]

    async def _measure_one(self, status: types_pb2.InstanceStatus) -> mqtt_pb2.InstanceMetrics | None:
        handle = self._handle_of(status.deployment_id)
        if handle is None:
            return None
        try:
            stats = await self._backend.stats(handle)
        except BackendError as error:
            log.info("instance_not_measured", deployment=status.deployment_id, reason=error.reason)
            return None
        return mqtt_pb2.InstanceMetrics(
            deployment_id=status.deployment_id,
            revision=status.revision,
            **vars(stats),
        )


def _use(accelerator: Accelerator, use: Use) -> mqtt_pb2.AcceleratorUse:
    name = accelerator.name or accelerator.kind
    return mqtt_pb2.AcceleratorUse(name=name, busy_percent=use.busy_percent, memory_kib=use.memory_kib)
