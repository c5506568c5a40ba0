"""What devices say becomes rows and events, once and in order, however often it is said."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.builds.model import BuildState, BuildTarget
from controller.deployments.assess import reassess
from controller.deployments.model import Deployment, DeploymentState, LeftOut, Wish, WorkloadRow
from controller.devices import reports
from controller.devices.model import Device, Presence
from controller.events.model import EventKind
from controller.store import Store, Transaction, open_store
from longshore.v1 import mqtt_pb2, types_pb2
from tests.support.rows import ARTIFACT, PROJECT, build, deployment

DEVICE = Device("dev-1", "edge", "x86-cpu", 1.0, generation=3)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")

    def fill(tx: Transaction) -> None:
        tx.devices.add(DEVICE)
        tx.builds.add(build(BuildState.SUCCEEDED), "")
        tx.deployments.add(deployment())
        tx.workloads.put(WorkloadRow("dep-1", "dev-1", 1, Wish.RUN, ARTIFACT, b""))

    await opened.transact(fill)
    yield opened
    opened.close()


def status(state: str = "RUNNING", *, ready: bool = True, digest: str = ARTIFACT.digest) -> types_pb2.InstanceStatus:
    value = types_pb2.InstanceState.Value(f"INSTANCE_STATE_{state}")
    return types_pb2.InstanceStatus(
        deployment_id="dep-1", revision=1, state=value, ready=ready, reason="Ready", artifact_digest=digest
    )


def snapshot(sequence: int, *statuses: types_pb2.InstanceStatus, observed: int = 3) -> mqtt_pb2.StatusSnapshot:
    return mqtt_pb2.StatusSnapshot(sequence=sequence, observed_generation=observed, instances=statuses)


def journal(*numbers: int, journal_id: str = "j1") -> mqtt_pb2.JournalBatch:
    entries = [mqtt_pb2.JournalEntry(number=n, journal_id=journal_id, instance=status()) for n in numbers]
    return mqtt_pb2.JournalBatch(entries=entries)


def presence(session: int, *, online: bool) -> mqtt_pb2.Presence:
    return mqtt_pb2.Presence(online=online, session=session)


async def current(store: Store) -> Deployment:
    found = await store.transact(lambda tx: tx.deployments.get("dep-1"))
    assert found is not None
    return found


async def seen(store: Store) -> Device:
    found = await store.transact(lambda tx: tx.devices.get("dev-1"))
    assert found is not None
    return found


async def come_online(store: Store, session: int = 1) -> None:
    await store.transact(lambda tx: reports.store_presence(tx, "dev-1", presence(session, online=True), time.time()))


async def test_a_snapshot_of_a_ready_instance_makes_the_deployment_ready(store: Store) -> None:
    await come_online(store)
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", snapshot(1, status()), time.time()))
    assert (await current(store)).condition.state is DeploymentState.READY


async def test_a_ready_instance_of_another_artifact_makes_nothing_ready(store: Store) -> None:
    """The database was restored from a backup, and the same revision number was given again."""
    await come_online(store)
    other = snapshot(1, status(digest="sha256:" + "0" * 64))
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", other, time.time()))
    assert (await current(store)).condition.state is DeploymentState.PROGRESSING
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", snapshot(2, status()), time.time()))
    assert (await current(store)).condition.state is DeploymentState.READY


async def test_an_older_snapshot_changes_nothing(store: Store) -> None:
    await come_online(store)
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", snapshot(7, status()), time.time()))
    older = snapshot(6, status("BACKOFF", ready=False))
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", older, time.time()))
    assert (await current(store)).condition.state is DeploymentState.READY


async def test_readiness_counts_only_in_running(store: Store) -> None:
    await come_online(store)
    odd = snapshot(1, status("STARTING", ready=True))
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", odd, time.time()))
    assert (await current(store)).condition.state is DeploymentState.PROGRESSING


async def test_a_will_of_an_older_session_is_dropped(store: Store) -> None:
    await come_online(store, session=2)
    await store.transact(lambda tx: reports.store_presence(tx, "dev-1", presence(1, online=False), time.time()))
    assert (await seen(store)).presence is Presence.ONLINE
    await store.transact(lambda tx: reports.store_presence(tx, "dev-1", presence(2, online=False), time.time()))
    assert (await seen(store)).presence is Presence.OFFLINE


async def test_presence_that_only_the_broker_repeats_is_doubted(store: Store) -> None:
    await come_online(store)
    asked = time.time() + 1
    await store.transact(lambda tx: reports.store_presence(tx, "dev-1", presence(1, online=True), 0.0))
    await store.transact(lambda tx: reports.doubt_silent(tx, asked))
    assert (await seen(store)).presence is Presence.UNKNOWN
    await store.transact(lambda tx: reports.store_presence(tx, "dev-1", presence(1, online=True), asked + 1))
    await store.transact(lambda tx: reports.doubt_silent(tx, asked))
    assert (await seen(store)).presence is Presence.ONLINE


async def test_each_journal_entry_becomes_one_event(store: Store) -> None:
    acks = []
    for batch in (journal(1, 2), journal(1, 2, 3), journal(3), journal(4)):
        acks.append(await store.transact(lambda tx, batch=batch: reports.store_journal(tx, "dev-1", batch)))  # type: ignore[misc]
    assert [ack.number for ack in acks if ack] == [2, 3, 3, 4]
    events, _ = await store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert [event.what.kind for event in events] == [EventKind.INSTANCE] * 4


async def test_a_new_journal_begins_anew(store: Store) -> None:
    await store.transact(lambda tx: reports.store_journal(tx, "dev-1", journal(1, 2, 3)))
    ack = await store.transact(lambda tx: reports.store_journal(tx, "dev-1", journal(1, journal_id="j2")))
    assert ack == mqtt_pb2.JournalAck(journal_id="j2", number=1)
    events, _ = await store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert len(events) == 4


async def test_deleted_only_when_a_device_with_the_newest_wish_has_it_no_more(store: Store) -> None:
    await come_online(store)

    def wish_delete(tx: Transaction) -> None:
        deleted = deployment(Wish.DELETE)
        tx.deployments.change(deleted)
        tx.workloads.wish("dep-1", "dev-1", Wish.DELETE)
        tx.devices.advance("dev-1")
        reassess(tx, deleted)

    await store.transact(wish_delete)
    for sequence, told in ((1, snapshot(1, observed=3)), (2, snapshot(2, status("STOPPING", ready=False), observed=4))):
        await store.transact(lambda tx, told=told: reports.store_snapshot(tx, "dev-1", told, time.time()))  # type: ignore[misc]
        assert (await current(store)).condition.state is DeploymentState.DELETING, sequence
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", snapshot(3, observed=4), time.time()))
    assert (await current(store)).condition.state is DeploymentState.DELETED


async def test_a_device_that_is_not_known_changes_nothing(store: Store) -> None:
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-9", snapshot(1, status()), time.time()))
    await store.transact(lambda tx: reports.store_presence(tx, "dev-9", presence(1, online=True), time.time()))
    assert await store.transact(lambda tx: reports.store_journal(tx, "dev-9", journal(1))) is None
    assert await store.transact(lambda tx: tx.events.after(PROJECT, 0)) == ([], 0)


def told(number: int, sequence: int, *, ready: bool) -> mqtt_pb2.JournalBatch:
    entry = mqtt_pb2.JournalEntry(number=number, journal_id="j1", instance=status(ready=ready), sequence=sequence)
    return mqtt_pb2.JournalBatch(entries=[entry])


async def test_a_journal_entry_of_this_session_tells_what_is_true_before_the_next_snapshot_does(store: Store) -> None:
    def say(tx: Transaction) -> None:
        reports.store_presence(tx, "dev-1", presence(10, online=True), time.time())
        reports.store_snapshot(tx, "dev-1", snapshot(11, status("STARTING", ready=False)), time.time())
        reports.store_journal(tx, "dev-1", told(1, 12, ready=True))

    await store.transact(say)
    assert (await current(store)).condition.state is DeploymentState.READY
    await store.transact(
        lambda tx: reports.store_snapshot(tx, "dev-1", snapshot(11, status("STARTING", ready=False)), time.time())
    )
    assert (await current(store)).condition.state is DeploymentState.READY


async def test_a_journal_entry_from_before_this_session_is_an_event_and_no_evidence(store: Store) -> None:
    def say(tx: Transaction) -> None:
        reports.store_presence(tx, "dev-1", presence(10, online=True), time.time())
        reports.store_journal(tx, "dev-1", told(1, 9, ready=True))

    await store.transact(say)
    assert (await current(store)).condition.state is not DeploymentState.READY


async def test_a_journal_entry_that_is_older_than_the_last_snapshot_changes_nothing(store: Store) -> None:
    def say(tx: Transaction) -> None:
        reports.store_presence(tx, "dev-1", presence(10, online=True), time.time())
        reports.store_snapshot(tx, "dev-1", snapshot(13, status()), time.time())
        reports.store_journal(tx, "dev-1", told(1, 12, ready=False))

    await store.transact(say)
    assert (await current(store)).condition.state is DeploymentState.READY


def measured(cpu: int, revision: int = 1, deployment_id: str = "dep-1", **more: Any) -> mqtt_pb2.Metrics:
    metrics = mqtt_pb2.InstanceMetrics(deployment_id=deployment_id, revision=revision, cpu_millis=cpu, **more)
    return mqtt_pb2.Metrics(instances=[metrics])


async def test_the_newest_measurement_is_kept_with_what_the_processor_did_since_the_one_before(store: Store) -> None:
    async def told(metrics: mqtt_pb2.Metrics, at: float) -> list[tuple[float, int]]:
        await store.transact(lambda tx: reports.store_metrics(tx, "dev-1", metrics, at))
        rows = await store.transact(lambda tx: tx.workloads.measurements_of_device("dev-1"))
        return [(row.measured, row.cpu_millis_per_second) for row in rows]

    assert await told(measured(1000), 100.0) == [(100.0, -1)]
    assert await told(measured(61_000), 160.0) == [(160.0, 1000)]
    assert await told(measured(61_000), 220.0) == [(220.0, 0)]
    # It was started anew, then updated; then somebody talks nonsense.
    assert await told(measured(500), 280.0) == [(280.0, -1)]
    assert await told(measured(9000, revision=2), 340.0) == [(340.0, -1)]
    assert await told(measured(2**62, revision=2), 340.0001) == [(340.0001, reports.MOST_CPU)]
    assert await told(measured(-(2**62), revision=2), 400.0) == [(400.0, -1)]


async def test_measurements_of_what_a_device_is_not_to_have_are_not_kept(store: Store) -> None:
    many = [mqtt_pb2.AcceleratorUse(name=str(number)) for number in range(1000)]

    def tell(tx: Transaction) -> None:
        reports.store_metrics(tx, "dev-1", measured(1, deployment_id="dep-none"), 1.0)
        reports.store_metrics(tx, "dev-none", measured(1), 1.0)
        reports.store_metrics(tx, "dev-1", measured(1, accelerators=many), 1.0)

    await store.transact(tell)
    (row,) = await store.transact(lambda tx: tx.workloads.measurements_of_device("dev-1"))
    assert len(row.metrics) < 1000
    (place,) = await store.transact(lambda tx: tx.workloads.placements("dep-1"))
    assert place.measurement == row
    await store.transact(lambda tx: tx.workloads.remove("dep-1", "dev-1"))
    assert await store.transact(lambda tx: tx.workloads.measurements_of_device("dev-1")) == []


SPEC = b"""
version: 1
name: other
build: {runtime: {kind: onnx, path: digits.onnx}, minimum: {memory: 2GiB}}
deploy: {resources: {memory: 512MiB}}
targets: [{profile: x86-cpu}]
"""


async def test_a_device_that_suddenly_says_that_it_has_less_keeps_what_it_has(store: Store) -> None:
    """A driver that fails for a moment must not end what runs, and delete its volumes."""
    target = BuildTarget("x86-cpu", "x86-cpu", "linux/amd64", state=BuildState.SUCCEEDED, artifact=ARTIFACT)

    def place_it(tx: Transaction) -> None:
        tx.deployments.change(deployment(Wish.DELETE))
        tx.builds.add(replace(build(), id="b-2", targets=(target,)), "")
        tx.deployments.add(replace(deployment(), id="dep-2", name="other", build_id="b-2", spec=SPEC))

    async def told(sequence: int, gib: int) -> tuple[list[Wish], tuple[LeftOut, ...]]:
        said = mqtt_pb2.StatusSnapshot(sequence=sequence)
        said.facts.architecture, said.facts.backend, said.facts.memory_bytes = "amd64", "podman 5.0", gib * 2**30
        await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", said, time.time()))
        rows = await store.transact(lambda tx: tx.workloads.of_deployment("dep-2"))
        found = await store.transact(lambda tx: tx.deployments.get("dep-2"))
        assert found is not None
        return [row.wish for row in rows], found.left_out

    await store.transact(place_it)
    small = (LeftOut("edge", "DeviceTooSmall", "build.minimum.memory asks for 2.00 GiB, it has 1.00 GiB"),)
    assert await told(1, 1) == ([], small)
    assert await told(2, 4) == ([Wish.RUN], ())
    assert await told(3, 1) == ([Wish.RUN], ())
