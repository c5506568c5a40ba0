"""What goes out when: snapshots on change, and journal batches until they are acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message

from edge_agent.runtime import publisher
from edge_agent.runtime.database import StorageError
from edge_agent.runtime.publisher import BATCH_SIZE, JournalPublisher, SnapshotPublisher
from longshore.topics import Topic
from longshore.v1 import device_pb2, mqtt_pb2, types_pb2
from tests.support.async_waiting import until


@dataclass
class Outlet:
    """A connection that keeps what it is given."""

    connected: bool = True
    published: list[Message] = field(default_factory=list)

    def publish(self, topic: Topic, message: Message) -> bool:
        if self.connected:
            copy = type(message)()
            copy.CopyFrom(message)
            self.published.append(copy)
        return self.connected

    def snapshots(self) -> list[mqtt_pb2.StatusSnapshot]:
        return [message for message in self.published if isinstance(message, mqtt_pb2.StatusSnapshot)]

    def batches(self) -> list[list[int]]:
        found = [message for message in self.published if isinstance(message, mqtt_pb2.JournalBatch)]
        return [[entry.number for entry in batch.entries] for batch in found]


@dataclass
class Device:
    """What is true on a device."""

    instance: types_pb2.InstanceStatus = field(default_factory=types_pb2.InstanceStatus)
    sequence: int = 0

    def statuses(self) -> Sequence[types_pb2.InstanceStatus]:
        return [self.instance]

    def observed_generation(self) -> int:
        return 7

    def device_facts(self) -> device_pb2.DeviceFacts:
        return device_pb2.DeviceFacts(cpus=2)

    def condition(self) -> str:
        return "PodmanUnavailable: gone"

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence


class Entries:
    """A journal in memory."""

    journal_id = "mine"

    def __init__(self, count: int) -> None:
        self.numbers = list(range(1, count + 1))
        self.full = False

    def unacknowledged(self, limit: int) -> Sequence[mqtt_pb2.JournalEntry]:
        return [mqtt_pb2.JournalEntry(number=number, journal_id="mine") for number in self.numbers[:limit]]

    def acknowledge(self, journal_id: str, number: int) -> None:
        if self.full:
            raise StorageError("disk full")
        self.numbers = [kept for kept in self.numbers if kept > number]


@asynccontextmanager
async def running(part: SnapshotPublisher | JournalPublisher) -> AsyncIterator[None]:
    task = asyncio.create_task(part.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ack(number: int, journal_id: str = "mine") -> mqtt_pb2.JournalAck:
    return mqtt_pb2.JournalAck(journal_id=journal_id, number=number)


async def settled() -> None:
    """Everything that can happen without time passing has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_snapshot_tells_all_that_is_true() -> None:
    outlet, device = Outlet(), Device(types_pb2.InstanceStatus(deployment_id="d", ready=True))
    snapshots = SnapshotPublisher(outlet, device)
    async with running(snapshots):
        snapshots.changed()
        await settled()
    (sent,) = outlet.snapshots()
    assert sent.observed_generation == 7
    assert sent.facts.cpus == 2
    assert sent.condition == "PodmanUnavailable: gone"
    assert sent.sequence == 1
    assert sent.instances[0].ready
    assert sent.time.seconds > 0


async def test_the_first_change_goes_out_at_once_and_what_follows_goes_out_together() -> None:
    outlet, device = Outlet(), Device()
    snapshots = SnapshotPublisher(outlet, device)
    async with running(snapshots):
        snapshots.changed()
        await settled()
        assert len(outlet.snapshots()) == 1
        for restarts in range(1, 6):
            device.instance.restarts = restarts
            snapshots.changed()
            await settled()
        assert len(outlet.snapshots()) == 1
        await until(lambda: len(outlet.snapshots()) == 2)
    assert outlet.snapshots()[-1].instances[0].restarts == 5
    assert [sent.sequence for sent in outlet.snapshots()] == [1, 2]


async def test_what_has_not_changed_is_not_said_again_unless_the_connection_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher, "SNAPSHOT_GAP", 0)
    outlet, device = Outlet(), Device()
    snapshots = SnapshotPublisher(outlet, device)
    async with running(snapshots):
        for _ in range(3):
            snapshots.changed()
            await settled()
        assert len(outlet.snapshots()) == 1
        snapshots.broker_connected()
        await settled()
        assert len(outlet.snapshots()) == 2


async def test_what_changed_without_a_connection_is_said_when_there_is_one() -> None:
    outlet, device = Outlet(connected=False), Device()
    snapshots = SnapshotPublisher(outlet, device)
    async with running(snapshots):
        snapshots.changed()
        await settled()
        assert outlet.snapshots() == []
        assert device.sequence == 0
        outlet.connected = True
        snapshots.broker_connected()
        await settled()
        assert len(outlet.snapshots()) == 1


async def test_one_batch_is_on_its_way_at_a_time_in_order() -> None:
    outlet, entries = Outlet(), Entries(BATCH_SIZE + 2)
    journal = JournalPublisher(outlet, entries)
    async with running(journal):
        journal.changed()
        await settled()
        journal.changed()
        await settled()
        assert outlet.batches() == [list(range(1, BATCH_SIZE + 1))]
        journal.acknowledged(ack(BATCH_SIZE))
        await settled()
        assert outlet.batches()[1:] == [[BATCH_SIZE + 1, BATCH_SIZE + 2]]
        journal.acknowledged(ack(BATCH_SIZE + 2))
        journal.changed()
        await settled()
        assert len(outlet.batches()) == 2


async def test_an_acknowledgement_of_part_of_a_batch_keeps_the_rest_on_its_way() -> None:
    outlet, entries = Outlet(), Entries(3)
    journal = JournalPublisher(outlet, entries)
    async with running(journal):
        journal.changed()
        await settled()
        journal.acknowledged(ack(2))
        await settled()
        assert outlet.batches() == [[1, 2, 3]]
        assert entries.numbers == [3]


async def test_a_batch_that_is_not_acknowledged_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "ACK_TIMEOUT", 0.02)
    outlet, entries = Outlet(), Entries(1)
    journal = JournalPublisher(outlet, entries)
    async with running(journal):
        journal.changed()
        await until(lambda: len(outlet.batches()) == 3)
        journal.acknowledged(ack(1))
        await settled()
        sent = len(outlet.batches())
        journal.changed()
        await settled()
        assert len(outlet.batches()) == sent
        assert set(map(tuple, outlet.batches())) == {(1,)}


async def test_a_new_connection_gets_the_batch_again_at_once() -> None:
    outlet, entries = Outlet(), Entries(2)
    journal = JournalPublisher(outlet, entries)
    async with running(journal):
        journal.changed()
        await settled()
        outlet.connected = False
        journal.changed()
        await settled()
        outlet.connected = True
        journal.broker_connected()
        await settled()
        assert outlet.batches() == [[1, 2], [1, 2]]


async def test_an_acknowledgement_of_another_journal_is_not_taken() -> None:
    outlet, entries = Outlet(), Entries(2)
    journal = JournalPublisher(outlet, entries)
    async with running(journal):
        journal.changed()
        await settled()
        journal.acknowledged(ack(2, "of another life"))
        await settled()
        assert entries.numbers == [1, 2]
        assert len(outlet.batches()) == 1


async def test_an_acknowledgement_that_cannot_be_stored_does_not_end_the_journal() -> None:
    outlet, entries = Outlet(), Entries(2)
    journal = JournalPublisher(outlet, entries)
    async with running(journal):
        journal.changed()
        await settled()
        entries.full = True
        journal.acknowledged(ack(2))
        entries.full = False
        journal.broker_connected()
        await settled()
        assert outlet.batches() == [[1, 2], [1, 2]]
