"""What the device says of itself over MQTT: status snapshots and the event journal."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import structlog
from google.protobuf.message import Message

from edge_agent.runtime.database import StorageError
from edge_agent.runtime.fail_points import reach
from longshore.topics import Topic
from longshore.v1 import device_pb2, mqtt_pb2, types_pb2

log = structlog.get_logger()

# The first change goes out at once; what changes within this time after it goes out together. Changes of state do not
# wait for it: the journal tells them.
SNAPSHOT_GAP = 1.0
BATCH_SIZE = 100
# A batch that is not acknowledged this long after it was sent is sent again; each time it waits twice as long, so that
# a broker that keeps messages for a controller that is away does not fill with the same ones.
ACK_TIMEOUT = 10.0
ACK_TIMEOUT_CAP = 160.0


class Outlet(Protocol):
    @property
    def connected(self) -> bool: ...

    def publish(self, topic: Topic, message: Message) -> bool:
        """False where there is no connection."""
        ...


class StatusSource(Protocol):
    """What is true on the device now."""

    def statuses(self) -> Sequence[types_pb2.InstanceStatus]: ...

    def observed_generation(self) -> int: ...

    def device_facts(self) -> device_pb2.DeviceFacts: ...

    def condition(self) -> str: ...

    def next_sequence(self) -> int:
        """Greater at each call, across restarts of the agent."""
        ...


class Journal(Protocol):
    @property
    def journal_id(self) -> str: ...

    def unacknowledged(self, limit: int) -> Sequence[mqtt_pb2.JournalEntry]:
        """The oldest ones, in order."""
        ...

    def acknowledge(self, journal_id: str, number: int) -> None: ...


class SnapshotPublisher:
    """Publishes all that is true whenever that has changed since it was last published on this connection."""

    def __init__(self, outlet: Outlet, source: StatusSource) -> None:
        self._outlet = outlet
        self._source = source
        self._changed = asyncio.Event()
        self._published: mqtt_pb2.StatusSnapshot | None = None

    def changed(self) -> None:
        """Something may have changed."""
        self._changed.set()

    def broker_connected(self) -> None:
        """What was said on a connection before may not have arrived."""
        self._published = None
        self._changed.set()

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            snapshot = self._snapshot() if self._outlet.connected else None
            if snapshot is not None and snapshot != self._published:
                self._publish(snapshot)
                await asyncio.sleep(SNAPSHOT_GAP)

    def _snapshot(self) -> mqtt_pb2.StatusSnapshot:
        return mqtt_pb2.StatusSnapshot(
            observed_generation=self._source.observed_generation(),
            instances=self._source.statuses(),
            facts=self._source.device_facts(),
            condition=self._source.condition(),
        )

    def _publish(self, snapshot: mqtt_pb2.StatusSnapshot) -> None:
        numbered = mqtt_pb2.StatusSnapshot()
        numbered.CopyFrom(snapshot)
        numbered.sequence = self._source.next_sequence()
        numbered.time.FromNanoseconds(time.time_ns())
        if self._outlet.publish(Topic.STATUS, numbered):
            self._published = snapshot


class JournalPublisher:
    """Sends entries in order, one batch at a time, until the controller has acknowledged them."""

    def __init__(self, outlet: Outlet, journal: Journal) -> None:
        self._outlet = outlet
        self._journal = journal
        self._wake = asyncio.Event()
        # Number of the last entry of the batch that waits for its acknowledgement; 0 where none does.
        self._awaited = 0
        self._resend_at = 0.0
        self._patience = ACK_TIMEOUT

    def changed(self) -> None:
        """There may be new entries."""
        self._wake.set()

    def broker_connected(self) -> None:
        """What was on its way on a connection before may not have arrived."""
        self._settled()
        self._wake.set()

    def acknowledged(self, ack: mqtt_pb2.JournalAck) -> None:
        """All up to its number is durable at the controller. One of a journal that was lost says nothing."""
        if ack.journal_id != self._journal.journal_id:
            return
        reach("journal.acknowledged")
        try:
            self._journal.acknowledge(ack.journal_id, ack.number)
        except StorageError as error:
            # The entries are sent again and acknowledged again.
            log.error("acknowledgement_not_stored", error=str(error))
            return
        reach("journal.settled")
        if ack.number >= self._awaited:
            self._settled()
        self._wake.set()

    def _settled(self) -> None:
        self._awaited, self._patience = 0, ACK_TIMEOUT

    async def run(self) -> None:
        while True:
            await self._woken()
            if self._outlet.connected and not self._waits():
                self._send()

    def _waits(self) -> bool:
        return bool(self._awaited) and time.monotonic() < self._resend_at

    async def _woken(self) -> None:
        """Until something has changed, or a batch waits too long."""
        timeout = self._resend_at - time.monotonic() if self._awaited and self._outlet.connected else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            log.warning("journal_not_acknowledged", up_to=self._awaited, waited=self._patience)
            self._patience = min(2 * self._patience, ACK_TIMEOUT_CAP)
        self._wake.clear()

    def _send(self) -> None:
        try:
            entries = self._journal.unacknowledged(BATCH_SIZE)
        except StorageError as error:
            log.error("journal_not_readable", error=str(error))
            return
        if entries and self._outlet.publish(Topic.JOURNAL, mqtt_pb2.JournalBatch(entries=entries)):
            reach("journal.published")
            self._awaited = entries[-1].number
            self._resend_at = time.monotonic() + self._patience
        elif not entries:
            self._settled()
