"""What devices say, stored in batches: one transaction for all that waits; acknowledged after the commit."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from controller.devices import reports
from controller.devices.model import Device
from controller.mqtt.link import BrokerLink, BrokerSettings, Received
from controller.store import DesiredChanged, DeviceDeleted, Signal, Store, Transaction
from longshore.topics import RULES, Topic
from longshore.v1 import mqtt_pb2

log = structlog.get_logger()
LARGEST_BATCH = 500
# So many messages wait while the database takes nothing.
MOST_WAITING = 100_000
# Within this time after a ring each living device answers with its presence.
ANSWER_TIME = 10.0
# How long the broker may be gone before every device's presence is unknown.
BROKER_GRACE = 3.0
# What the content of a message can bring about.
NONSENSE = (ValueError, TypeError, LookupError, ArithmeticError)
KEPT = frozenset(topic for topic, rule in RULES.items() if rule.retain)


@dataclass(frozen=True)
class Outcome:
    """`acks`: the newest acknowledgement for each device that sent journal entries. `unwanted`: topics of which the
    broker keeps what was said by no device, or by one that is none any more."""

    acks: Mapping[str, mqtt_pb2.JournalAck]
    unwanted: Mapping[str, frozenset[Topic]]


class DeviceMessages:
    """Connects the broker with the store, both ways. `run()` until cancelled."""

    def __init__(self, store: Store, settings: BrokerSettings) -> None:
        self._store = store
        self._queue: asyncio.Queue[Received] = asyncio.Queue(maxsize=MOST_WAITING)
        # Whether a message was dropped whose place is taken by nothing that came later.
        self._dropped = False
        self._connection_changed = asyncio.Event()
        self._link = BrokerLink(settings, self._received, self._connection)
        store.subscribe(self._heard)

    @property
    def connected(self) -> bool:
        return self._link.connected

    def invite(self, device_id: str, invitation: mqtt_pb2.ChannelInvitation) -> None:
        """Asks a device to dial a channel."""
        self._link.publish(device_id, Topic.CHANNEL, invitation)

    async def run(self) -> None:
        self._link.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._store_messages())
                tasks.create_task(self._follow_connection())
        finally:
            await self._link.stop()

    async def _store_messages(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < LARGEST_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            for outcome in await self._store_batch(batch):
                for device_id, topics in outcome.unwanted.items():
                    self._link.clear(device_id, topics)
                for device_id, ack in outcome.acks.items():
                    self._link.publish(device_id, Topic.JOURNAL_ACK, ack)
            if self._dropped and self._queue.empty():
                # Journals are sent again, since nobody has acknowledged them; the rest is kept by the broker.
                self._dropped = False
                self._link.hear_again()

    async def _store_batch(self, batch: Sequence[Received]) -> list[Outcome]:
        """Once all of it is stored, however long the database takes nothing. One device that says nonsense must not
        silence the others: then each message is stored by itself."""
        try:
            return [await self._store.insist(lambda tx: _store(tx, batch))]
        except NONSENSE:
            if len(batch) == 1:
                log.exception("message cannot be stored", device=batch[0].device_id, topic=batch[0].topic)
                return []
        return [outcome for message in batch for outcome in await self._store_batch([message])]

    async def _follow_connection(self) -> None:
        while True:
            self._connection_changed.clear()
            if self._link.connected:
                rung = time.time()
                await self._ring_all()
                if not await self._connection_changes(ANSWER_TIME):
                    await self._store.insist(lambda tx, rung=rung: reports.doubt_silent(tx, rung))  # type: ignore[misc]
                    await self._connection_changed.wait()
            elif not await self._connection_changes(BROKER_GRACE):
                await self._store.insist(lambda tx: reports.lose_sight(tx, "BrokerUnreachable"))
                await self._connection_changed.wait()

    async def _connection_changes(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._connection_changed.wait()
        except TimeoutError:
            return False
        return True

    async def _ring_all(self) -> None:
        """The bells of all devices, which answer with their presence; what was said before may have been lost."""
        devices = await self._store.insist(lambda tx: tx.devices.matching("", {}))
        for device in devices:
            self._ring(device.id, device.generation)
            if device.journal_id:
                self._link.publish(device.id, Topic.JOURNAL_ACK, _ack(device))

    def _ring(self, device_id: str, generation: int) -> None:
        self._link.publish(device_id, Topic.DESIRED, mqtt_pb2.DesiredNotice(generation=generation))

    def _heard(self, signal: Signal) -> None:
        if isinstance(signal, DesiredChanged):
            self._ring(signal.device_id, signal.generation)
        elif isinstance(signal, DeviceDeleted):
            self._link.clear(signal.device_id, KEPT)

    def _received(self, message: Received) -> None:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            if not self._dropped:
                log.error("too many messages of devices wait; some are dropped, and heard again later")
            self._dropped = True

    def _connection(self, _connected: bool) -> None:
        self._connection_changed.set()


def _ack(device: Device) -> mqtt_pb2.JournalAck:
    return mqtt_pb2.JournalAck(journal_id=device.journal_id, number=device.journal_number)


def _store(tx: Transaction, batch: Sequence[Received]) -> Outcome:
    """All messages in order."""
    acks: dict[str, mqtt_pb2.JournalAck] = {}
    unwanted: dict[str, frozenset[Topic]] = {}
    devices = {device_id for device_id in {message.device_id for message in batch} if tx.devices.get(device_id)}
    for message in batch:
        if message.device_id not in devices:
            unwanted[message.device_id] = unwanted.get(message.device_id, frozenset()) | _kept_with(message)
        elif (ack := _store_one(tx, message)) is not None:
            acks[message.device_id] = ack
    return Outcome(acks, unwanted)


def _kept_with(message: Received) -> frozenset[Topic]:
    """What the broker keeps, as this message shows. Of one that still speaks only what it has said: it would take the
    clearing of its bell for the bell, and speak again."""
    return KEPT if message.retained else KEPT & {message.topic}


def _store_one(tx: Transaction, message: Received) -> mqtt_pb2.JournalAck | None:
    payload, seen_at = message.payload, 0.0 if message.retained else message.at
    if isinstance(payload, mqtt_pb2.Presence):
        reports.store_presence(tx, message.device_id, payload, seen_at)
    elif isinstance(payload, mqtt_pb2.StatusSnapshot):
        reports.store_snapshot(tx, message.device_id, payload, seen_at)
    elif isinstance(payload, mqtt_pb2.Metrics):
        reports.store_metrics(tx, message.device_id, payload, message.at)
    elif isinstance(payload, mqtt_pb2.JournalBatch):
        return reports.store_journal(tx, message.device_id, payload)
    return None
