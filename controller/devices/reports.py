"""What devices say over MQTT becomes rows and events. Every function works in one transaction and may be repeated:
an older or repeated report changes nothing."""

from dataclasses import replace

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from controller.deployments.assess import reassess_all
from controller.deployments.model import InstanceRow, Measurement, Wish
from controller.devices.facts import abilities, merged
from controller.devices.model import Device, Presence
from controller.devices.scheduling import assess_drain, device_event, place_all
from controller.events.model import EventKind, NewEvent
from controller.store import Transaction
from longshore.v1 import mqtt_pb2, types_pb2

log = structlog.get_logger()

# Of one instance; no machine has more accelerators, or spends more milliseconds in a second.
MOST_ACCELERATORS = 64
MOST_CPU = 10**9
# Of a failure's output, in its event.
MOST_LINES, LONGEST_LINE = 20, 1000


def store_presence(tx: Transaction, device_id: str, presence: mqtt_pb2.Presence, seen_at: float) -> None:
    """A device came or went; `seen_at` 0 where the broker only repeats what it kept. A will of an older session is
    dropped."""
    device = tx.devices.get(device_id)
    if device is None or presence.session < device.session:
        return
    state = Presence.ONLINE if presence.online else Presence.OFFLINE
    seen = max(seen_at, device.last_seen) if presence.online else device.last_seen
    tx.devices.change(device_id, session=presence.session, last_seen=seen)
    if presence.online and device.presence is not Presence.ONLINE and presence.session > device.snapshot_sequence:
        _withdraw_readiness(tx, device_id)
    _set_presence(tx, replace(device, last_seen=seen), state, "")


def lose_sight(tx: Transaction, reason: str) -> None:
    """The controller has lost the broker: nothing is known of any device's presence."""
    for device in tx.devices.matching("", {}):
        if device.presence is not Presence.UNKNOWN:
            _set_presence(tx, device, Presence.UNKNOWN, reason)


def doubt_silent(tx: Transaction, since: float) -> None:
    """Devices that are thought online and have said nothing since then: nobody knows. A broker that was restarted
    repeats "online" of devices that have died meanwhile."""
    for device in tx.devices.matching("", {}):
        if device.presence is Presence.ONLINE and device.last_seen < since:
            _set_presence(tx, device, Presence.UNKNOWN, "NoAnswer")


def store_snapshot(tx: Transaction, device_id: str, snapshot: mqtt_pb2.StatusSnapshot, seen_at: float) -> None:
    """All that is true on the device now; `seen_at` as in `store_presence`."""
    device = tx.devices.get(device_id)
    if device is None or snapshot.sequence <= device.snapshot_sequence:
        return
    facts = merged(device.facts, snapshot.facts)
    observed = min(max(snapshot.observed_generation, device.observed_generation), device.generation)
    tx.devices.change(
        device_id, snapshot_sequence=snapshot.sequence, observed_generation=observed,
        facts=facts, condition=snapshot.condition, last_seen=max(seen_at, device.last_seen),
    )  # fmt: skip
    touched = _store_instances(tx, device_id, snapshot)
    # This report's own generation: one from before the device has looked at what it runs is no evidence of absence.
    if snapshot.observed_generation >= device.generation:
        touched |= _forget_deleted(tx, device_id, {status.deployment_id for status in snapshot.instances})
    reassess_all(tx, touched)
    if abilities(facts) != abilities(device.facts):
        place_all(tx)
    assess_drain(tx, device_id)


def store_journal(tx: Transaction, device_id: str, batch: mqtt_pb2.JournalBatch) -> mqtt_pb2.JournalAck | None:
    """Events of the device's instances, each number once; what is newer than the last snapshot is true now. Answers
    what is durable from now on."""
    device = tx.devices.get(device_id)
    if device is None or not batch.entries:
        return None
    journal_id = batch.entries[0].journal_id
    last = device.journal_number if journal_id == device.journal_id else 0
    newest = max(device.snapshot_sequence, device.session)
    touched: set[str] = set()
    for entry in batch.entries:
        if entry.number <= last or entry.journal_id != journal_id:
            continue
        if last and entry.number != last + 1:
            log.warning("journal has a gap", device=device_id, after=last, next=entry.number)
        _append_instance_event(tx, device_id, entry)
        last = entry.number
        if entry.sequence > newest:
            newest = entry.sequence
            touched |= _store_instance(tx, device_id, entry.instance)
    tx.devices.change(device_id, journal_id=journal_id, journal_number=last)
    if touched:
        # What an older snapshot says, which comes after it, is not true any more.
        tx.devices.change(device_id, snapshot_sequence=newest)
        reassess_all(tx, touched)
        assess_drain(tx, device_id)
    return mqtt_pb2.JournalAck(journal_id=journal_id, number=last)


def store_metrics(tx: Transaction, device_id: str, metrics: mqtt_pb2.Metrics, seen_at: float) -> None:
    """What the device's instances use; the newest alone is kept, of those that the device is to have."""
    wanted = {row.deployment_id for row in tx.workloads.of_device(device_id)}
    before = {row.deployment_id: row for row in tx.workloads.measurements_of_device(device_id)}
    for measured in metrics.instances:
        if measured.deployment_id in wanted:
            measured.DiscardUnknownFields()
            del measured.accelerators[MOST_ACCELERATORS:]
            tx.workloads.put_measurement(_measurement(device_id, measured, before.get(measured.deployment_id), seen_at))


def _measurement(
    device_id: str, measured: mqtt_pb2.InstanceMetrics, before: Measurement | None, seen_at: float
) -> Measurement:
    rate = -1
    if before is not None and before.revision == measured.revision and seen_at > before.measured:
        spent = measured.cpu_millis - mqtt_pb2.InstanceMetrics.FromString(before.metrics).cpu_millis
        # Less than before: it was started anew.
        rate = min(MOST_CPU, round(spent / (seen_at - before.measured))) if spent >= 0 else -1
    return Measurement(
        measured.deployment_id, device_id, measured.revision, seen_at, rate, measured.SerializeToString()
    )


def _set_presence(tx: Transaction, device: Device, presence: Presence, reason: str) -> None:
    if device.presence is presence:
        return
    tx.devices.change(device.id, presence=presence.value)
    tx.events.append(device_event(device, presence.value, reason))
    reassess_all(tx, {row.deployment_id for row in tx.workloads.of_device(device.id)})


def _withdraw_readiness(tx: Transaction, device_id: str) -> None:
    """A device that was out of sight is back and has not said yet what is true there: what it said before it went is
    no evidence that anything answers now. Its next snapshot is."""
    for row in tx.workloads.instances_of_device(device_id):
        if row.ready:
            status = types_pb2.InstanceStatus.FromString(row.status)
            status.ready, status.reason = False, "NotObserved"
            status.message = "the device is back and has not reported yet"
            tx.workloads.put_instance(instance_row(device_id, status))


def _store_instances(tx: Transaction, device_id: str, snapshot: mqtt_pb2.StatusSnapshot) -> set[str]:
    wanted = {row.deployment_id for row in tx.workloads.of_device(device_id)}
    said = {status.deployment_id: instance_row(device_id, status) for status in snapshot.instances}
    before = {row.deployment_id: row for row in tx.workloads.instances_of_device(device_id)}
    for deployment_id, row in said.items():
        if deployment_id in wanted and before.get(deployment_id) != row:
            tx.workloads.put_instance(row)
    for deployment_id in before.keys() - said.keys():
        tx.workloads.remove_instance(deployment_id, device_id)
    return wanted | before.keys()


def _store_instance(tx: Transaction, device_id: str, status: types_pb2.InstanceStatus) -> set[str]:
    """What is true of one instance now; the deployments that this concerns."""
    if status.deployment_id not in {row.deployment_id for row in tx.workloads.of_device(device_id)}:
        return set()
    tx.workloads.put_instance(instance_row(device_id, status))
    return {status.deployment_id}


def _forget_deleted(tx: Transaction, device_id: str, still_there: set[str]) -> set[str]:
    """Workloads that were to be deleted, and that a device with the newest wish does not name any more, are gone."""
    gone = {
        row.deployment_id
        for row in tx.workloads.of_device(device_id)
        if row.wish is Wish.DELETE and row.deployment_id not in still_there
    }
    for deployment_id in gone:
        tx.workloads.remove(deployment_id, device_id)
        tx.workloads.remove_instance(deployment_id, device_id)
    return gone


def _append_instance_event(tx: Transaction, device_id: str, entry: mqtt_pb2.JournalEntry) -> None:
    status = entry.instance
    deployment = tx.deployments.get(status.deployment_id)
    if deployment is None:
        log.warning("journal speaks of an unknown deployment", device=device_id, deployment=status.deployment_id)
        return
    tx.events.append(
        NewEvent(
            project=deployment.project,
            kind=EventKind.INSTANCE,
            state=state_name(status),
            deployment_id=deployment.id,
            device_id=device_id,
            revision=status.revision,
            ready=status.ready,
            reason=status.reason,
            message=status.message,
            occurred=_seconds(entry.occurred),
            artifact_digest=status.artifact_digest,
            last_lines=_failures_lines(status),
        )
    )


def _failures_lines(status: types_pb2.InstanceStatus) -> tuple[str, ...]:
    """What stays readable of a failure after the instance is gone."""
    failed = status.state in (types_pb2.INSTANCE_STATE_FAILED, types_pb2.INSTANCE_STATE_BACKOFF)
    return tuple(line[:LONGEST_LINE] for line in status.last_lines[-MOST_LINES:]) if failed else ()


def _seconds(moment: Timestamp) -> float:
    """0, which means now, for a clock that is out of every calendar."""
    try:
        return moment.ToMicroseconds() / 1e6
    except ValueError:
        return 0.0


def state_name(status: types_pb2.InstanceStatus) -> str:
    """The state without its prefix; "UNSPECIFIED" for a number that this version does not know."""
    try:
        return types_pb2.InstanceState.Name(status.state).removeprefix("INSTANCE_STATE_")
    except ValueError:
        return "UNSPECIFIED"


def instance_row(device_id: str, status: types_pb2.InstanceStatus) -> InstanceRow:
    """What is kept of a status. Readiness counts only in RUNNING."""
    state = state_name(status)
    return InstanceRow(
        deployment_id=status.deployment_id,
        device_id=device_id,
        revision=status.revision,
        state=state,
        ready=status.ready and state == "RUNNING",
        reason=status.reason,
        message=status.message,
        attempts=status.attempts,
        artifact_digest=status.artifact_digest,
        status=status.SerializeToString(),
        since=_seconds(status.since),
    )
