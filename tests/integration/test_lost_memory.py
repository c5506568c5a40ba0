"""What holds when a device comes back, a database is older than its devices, or somebody says nonsense."""

from collections.abc import AsyncIterator, Set
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from controller.builds.model import BuildState
from controller.deployments.model import DeploymentState, Wish, WorkloadRow
from controller.devices import reports
from controller.devices.model import Device
from controller.errors import InvalidRequest
from controller.events.model import EventKind
from controller.mqtt.inbox import KEPT, DeviceMessages, Outcome
from controller.mqtt.link import BrokerSettings, Received
from controller.rpc.device_servicer import AgentServicer
from controller.rpc.interceptor import caller
from controller.store import DesiredChanged, Signal, Store, Transaction, open_store
from controller.store.access import Principal, Role
from longshore.topics import Topic
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2
from tests.support.rows import ARTIFACT, PROJECT, build, deployment

DEVICE = Device("dev-1", "edge", "x86-cpu", 1.0, generation=3)
READY = types_pb2.InstanceStatus(
    deployment_id="dep-1", revision=1, state=types_pb2.INSTANCE_STATE_RUNNING, ready=True, reason="Ready",
    artifact_digest=ARTIFACT.digest,
)  # fmt: skip


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


async def say_presence(store: Store, session: int, *, online: bool) -> None:
    said = mqtt_pb2.Presence(online=online, session=session)
    await store.transact(lambda tx: reports.store_presence(tx, "dev-1", said, 5.0))


async def say_ready(store: Store, sequence: int) -> None:
    said = mqtt_pb2.StatusSnapshot(sequence=sequence, observed_generation=3, instances=[READY])
    await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", said, 5.0))


async def states(store: Store) -> list[str]:
    """The states of the deployment, event after event."""
    events, _ = await store.transact(lambda tx: tx.events.after(PROJECT, 0))
    return [event.what.state for event in events if event.what.kind is EventKind.DEPLOYMENT]


async def test_a_device_that_is_back_is_ready_only_when_it_says_so_again(store: Store) -> None:
    await say_presence(store, 10, online=True)
    await say_ready(store, 11)
    await say_presence(store, 10, online=False)
    await say_presence(store, 20, online=True)
    back = await store.transact(lambda tx: tx.deployments.get("dep-1"))
    assert back is not None
    assert (back.condition.state, back.condition.reason) == (DeploymentState.DEGRADED, "NotObserved")
    assert (await states(store)).count("READY") == 1
    await say_ready(store, 21)
    assert (await states(store))[-1] == "READY"


async def test_a_report_of_the_new_connection_counts_also_when_it_comes_before_the_presence(store: Store) -> None:
    await say_presence(store, 10, online=True)
    await say_presence(store, 10, online=False)
    await say_ready(store, 21)
    await say_presence(store, 20, online=True)
    assert (await states(store))[-1] == "READY"


async def test_a_device_that_has_not_looked_yet_does_not_make_a_deployment_deleted(store: Store) -> None:
    await say_presence(store, 10, online=True)
    await say_ready(store, 11)

    def delete(tx: Transaction) -> None:
        tx.deployments.change(deployment(Wish.DELETE))
        tx.workloads.wish("dep-1", "dev-1", Wish.DELETE)

    async def say_nothing_runs(sequence: int, observed: int) -> DeploymentState:
        said = mqtt_pb2.StatusSnapshot(sequence=sequence, observed_generation=observed)
        await store.transact(lambda tx: reports.store_snapshot(tx, "dev-1", said, 5.0))
        found = await store.transact(lambda tx: tx.deployments.get("dep-1"))
        assert found is not None
        return found.condition.state

    await store.transact(delete)
    # Its database was lost, and its engine does not answer yet.
    assert await say_nothing_runs(12, observed=0) is DeploymentState.DELETING
    assert await say_nothing_runs(13, observed=3) is DeploymentState.DELETED


async def ask_desired(store: Store, held: int) -> agent_pb2.GetDesiredStateResponse:
    unused: Any = None
    servicer = AgentServicer(unused, store, unused, unused, unused, unused, "", "")
    caller.set(Principal("dev-1", Role.DEVICE))
    without_certificate = SimpleNamespace(auth_context=dict)
    request = agent_pb2.GetDesiredStateRequest(held_generation=held)
    return await servicer.GetDesiredState(request, without_certificate)


async def test_a_restored_database_counts_on_from_what_its_device_holds(store: Store) -> None:
    heard: list[Signal] = []
    store.subscribe(heard.append)
    answer = await ask_desired(store, held=9)
    assert answer.desired.generation == 10
    assert [wish.workload.deployment_id for wish in answer.desired.workloads] == ["dep-1"]
    assert heard == [DesiredChanged("dev-1", 10)]
    assert not (await ask_desired(store, held=10)).HasField("desired")


@pytest.mark.parametrize("held", [-1, 2**63 - 1])
async def test_a_generation_that_cannot_be_is_refused(store: Store, held: int) -> None:
    with pytest.raises(InvalidRequest, match="held_generation"):
        await ask_desired(store, held)


def journal(number: int, seconds: int, revision: int = 1) -> mqtt_pb2.JournalBatch:
    status = types_pb2.InstanceStatus(deployment_id="dep-1", revision=revision)
    entry = mqtt_pb2.JournalEntry(number=number, journal_id="j", instance=status, occurred=Timestamp(seconds=seconds))
    return mqtt_pb2.JournalBatch(entries=[entry])


async def test_a_device_with_a_broken_clock_is_heard(store: Store) -> None:
    ack = await store.transact(lambda tx: reports.store_journal(tx, "dev-1", journal(1, seconds=2**62)))
    assert ack is not None
    assert ack.number == 1
    events, _ = await store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert events[-1].what.occurred == pytest.approx(events[-1].time, abs=5)


async def test_a_message_that_cannot_be_stored_takes_no_other_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tx: Transaction, device_id: str, snapshot: mqtt_pb2.StatusSnapshot, seen_at: float) -> None:
        raise OverflowError("a number that no column takes")

    monkeypatch.setattr(reports, "store_snapshot", refuse)
    nowhere = Path("unused")
    messages = DeviceMessages(store, BrokerSettings("127.0.0.1", 1, nowhere, nowhere, nowhere))
    said = [journal(1, seconds=1), mqtt_pb2.StatusSnapshot(sequence=1), journal(2, seconds=2)]
    topics = (Topic.JOURNAL, Topic.STATUS, Topic.JOURNAL)
    batch = [Received("dev-1", topic, payload, False, 1.0) for topic, payload in zip(topics, said, strict=True)]
    outcomes = await messages._store_batch(batch)
    assert [outcome.acks["dev-1"].number for outcome in outcomes if outcome.acks] == [1, 2]


async def test_measurements_that_had_to_wait_for_the_database_count_from_when_they_came(store: Store) -> None:
    nowhere = Path("unused")
    messages = DeviceMessages(store, BrokerSettings("127.0.0.1", 1, nowhere, nowhere, nowhere))
    said = [
        mqtt_pb2.Metrics(instances=[mqtt_pb2.InstanceMetrics(deployment_id="dep-1", revision=1, cpu_millis=cpu)])
        for cpu in (1000, 31_000)
    ]
    batch = [Received("dev-1", Topic.METRICS, each, False, at) for each, at in zip(said, (100.0, 160.0), strict=True)]
    await messages._store_batch(batch)
    (row,) = await store.transact(lambda tx: tx.workloads.measurements_of_device("dev-1"))
    assert (row.measured, row.cpu_millis_per_second) == (160.0, 500)


@pytest.mark.parametrize(
    ("topic", "payload", "retained", "unwanted"),
    [
        (Topic.PRESENCE, mqtt_pb2.Presence(online=True, session=1), True, KEPT),
        (Topic.PRESENCE, mqtt_pb2.Presence(online=True, session=1), False, {Topic.PRESENCE}),
        (Topic.STATUS, mqtt_pb2.StatusSnapshot(sequence=1), False, {Topic.STATUS}),
        (Topic.JOURNAL, journal(1, seconds=1), False, set()),
    ],
)
async def test_what_the_broker_keeps_of_no_device_is_unwanted(
    store: Store, topic: Topic, payload: Any, retained: bool, unwanted: Set[Topic]
) -> None:
    nowhere = Path("unused")
    messages = DeviceMessages(store, BrokerSettings("127.0.0.1", 1, nowhere, nowhere, nowhere))
    (outcome,) = await messages._store_batch([Received("dev-none", topic, payload, retained, 1.0)])
    assert outcome == Outcome({}, {"dev-none": frozenset(unwanted)})
