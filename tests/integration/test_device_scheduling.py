"""Labels, cordon and drain: what is placed where, and by whose word a device is drained."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.deployments.model import Deployment, DeploymentState, Wish
from controller.deployments.service import DeploymentService, Request
from controller.devices import reports, scheduling
from controller.devices.model import Device, Presence, Scheduling
from controller.events.model import NO_PROJECT
from controller.rpc.desired import desired_state
from controller.store import Transaction
from longshore.v1 import mqtt_pb2, types_pb2
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import ARTIFACT, PROJECT, build

TEXT = """\
version: 1
name: digits
build: {base: "registry.invalid/digits:1"}
deploy: {checks: {readiness: {command: {command: [serve]}}}}
targets: [{profile: x86-cpu, labels: {site: hall}}]
"""
SECRET = TEXT.replace("deploy: {", "deploy: {secrets: [{name: token}], ")


class Floor:
    """Two devices of one label, and a deployment for both."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sequence = 0
        self.deployment_id = ""

    async def device(self, device_id: str) -> Device:
        found = await self.bench.store.transact(lambda tx: tx.devices.get(device_id))
        assert found is not None
        return found

    async def change(self, device_id: str, work: Callable[[Transaction, Device], None]) -> Device:
        device = await self.device(device_id)
        await self.bench.store.transact(lambda tx: work(tx, device))
        return await self.device(device_id)

    async def drain(self, device_id: str = "dev-1") -> Device:
        return await self.change(device_id, lambda tx, device: scheduling.drain(tx, device, "bob", "new disk"))

    async def apply(self, text: str = TEXT, build_id: str = "b-1", **secrets: bytes) -> Deployment:
        service = DeploymentService(self.bench.store, self.bench.service(), self.bench.secrets)
        request = Request(PROJECT, text.encode(), build_id=build_id, secrets=secrets)
        made = (await service.apply(request)).deployment
        self.deployment_id = made.id
        return made

    async def says(self, device_id: str, state: str = "", *, revision: int = 1, observed: int | None = None) -> None:
        """The device reports, after having read its newest wish, or that of a generation."""
        self.sequence += 1
        value = types_pb2.InstanceState.Value(f"INSTANCE_STATE_{state or 'STOPPED'}")
        status = types_pb2.InstanceStatus(
            deployment_id=self.deployment_id, revision=revision, ready=state == "RUNNING", state=value,
            artifact_digest=ARTIFACT.digest,
        )  # fmt: skip
        generation = (await self.device(device_id)).generation if observed is None else observed
        snapshot = mqtt_pb2.StatusSnapshot(
            sequence=self.sequence, observed_generation=generation, instances=[status] if state else []
        )
        await self.bench.store.transact(lambda tx: reports.store_snapshot(tx, device_id, snapshot, 1.0))

    async def wishes(self) -> dict[str, tuple[Wish, int]]:
        found = await self.bench.store.transact(lambda tx: tx.workloads.placements())
        return {one.workload.device_id: (one.workload.wish, one.workload.revision) for one in found}

    async def deployment(self) -> Deployment:
        found = await self.bench.store.transact(lambda tx: tx.deployments.by_name(PROJECT, "digits"))
        assert found is not None
        return found

    async def events(self) -> list[str]:
        found, _ = await self.bench.store.transact(lambda tx: tx.events.after(NO_PROJECT, 0))
        return [event.what.state for event in found]


@pytest.fixture
async def floor(tmp_path: Path) -> AsyncIterator[Floor]:
    async with open_bench(tmp_path, ScriptedBuilder()) as bench:

        def fill(tx: Transaction) -> None:
            for name, state in (("b-1", BuildState.SUCCEEDED), ("b-2", BuildState.QUEUED)):
                made = build(state)
                target = replace(made.targets[0], key="x86-cpu", profile="x86-cpu", artifact=ARTIFACT)
                tx.builds.add(replace(made, id=name, targets=(target,)), "")
            for name in ("dev-1", "dev-2"):
                labels = {"site": "hall"}
                tx.devices.add(Device(name, name, "x86-cpu", 1.0, labels, presence=Presence.ONLINE))

        await bench.store.transact(fill)
        yield Floor(bench)


async def test_a_drained_device_stops_and_is_drained_by_its_own_word_alone(floor: Floor) -> None:
    await floor.apply()
    for device in ("dev-1", "dev-2"):
        await floor.says(device, "RUNNING")
    before = (await floor.device("dev-1")).generation
    drained = await floor.drain()
    assert (drained.scheduling, drained.scheduling_by) == (Scheduling.DRAINING, "bob")
    assert await floor.wishes() == {"dev-1": (Wish.STOP, 1), "dev-2": (Wish.RUN, 1)}
    left = await floor.bench.store.transact(lambda tx: scheduling.left(tx, "dev-1"))
    assert scheduling.evidence(drained, left) == "1 left: digits (RUNNING)"
    # A report of before it knew of the drain proves nothing.
    await floor.says("dev-1", "STOPPED", observed=before)
    assert (await floor.device("dev-1")).scheduling is Scheduling.DRAINING
    await floor.says("dev-1", "STOPPED")
    assert (await floor.device("dev-1")).scheduling is Scheduling.DRAINED
    assert await floor.events() == ["DRAINING", "DRAINED"]
    state = await floor.deployment()
    assert state.condition.state is DeploymentState.READY
    assert "without dev-1 (it was drained by bob: new disk)" in state.condition.message


async def test_an_uncordoned_device_has_the_newest_revision(floor: Floor) -> None:
    await floor.apply()
    await floor.drain()
    await floor.apply()
    assert await floor.wishes() == {"dev-1": (Wish.STOP, 1), "dev-2": (Wish.RUN, 2)}
    opened = await floor.change("dev-1", scheduling.uncordon)
    assert (opened.scheduling, opened.scheduling_by) == (Scheduling.OPEN, "")
    assert await floor.wishes() == {"dev-1": (Wish.RUN, 2), "dev-2": (Wish.RUN, 2)}


async def test_a_drain_while_the_next_revision_is_built_stops_and_gives_back_the_one_that_ran(floor: Floor) -> None:
    await floor.apply()
    await floor.apply(build_id="b-2")
    await floor.drain()
    assert (await floor.wishes())["dev-1"] == (Wish.STOP, 1)
    await floor.change("dev-1", scheduling.uncordon)
    assert (await floor.wishes())["dev-1"] == (Wish.RUN, 1)


async def test_a_revision_that_was_overtaken_during_a_drain_is_not_started_again(floor: Floor) -> None:
    await floor.apply(SECRET, token=b"x")
    await floor.drain()
    await floor.apply(SECRET, token=b"y")
    await floor.apply(SECRET, build_id="b-2")
    await floor.change("dev-1", scheduling.uncordon)
    assert await floor.wishes() == {"dev-1": (Wish.STOP, 1), "dev-2": (Wish.RUN, 2)}


@pytest.mark.parametrize("next_build", ["b-1", "b-2"])
async def test_a_drained_device_that_is_cordoned_gets_back_what_it_kept_and_nothing_new(
    floor: Floor, next_build: str
) -> None:
    await floor.apply()
    await floor.drain()
    other = await floor.apply(TEXT.replace("digits", "other"))
    await floor.apply(build_id=next_build)
    await floor.change("dev-1", lambda tx, device: scheduling.cordon(tx, device, "bob", ""))
    found = await floor.bench.store.transact(lambda tx: tx.workloads.of_device("dev-1"))
    revision = 2 if next_build == "b-1" else 1
    assert [(row.wish, row.revision) for row in found] == [(Wish.RUN, revision)]
    assert found[0].deployment_id != other.id


async def test_what_its_user_stopped_is_not_started_by_an_uncordon_while_the_next_is_built(floor: Floor) -> None:
    made = await floor.apply()
    await floor.change("dev-1", lambda tx, device: scheduling.cordon(tx, device, "bob", ""))
    await DeploymentService(floor.bench.store, floor.bench.service(), floor.bench.secrets).stop(made.id)
    await floor.apply(build_id="b-2")
    await floor.change("dev-1", scheduling.uncordon)
    assert await floor.wishes() == {"dev-1": (Wish.STOP, 1), "dev-2": (Wish.STOP, 1)}


async def test_a_cordoned_device_keeps_and_updates_what_it_has_and_gets_nothing_new(floor: Floor) -> None:
    await floor.apply()
    for name in ("dev-1", "dev-2"):
        await floor.change(name, lambda tx, device: scheduling.cordon(tx, device, "bob", ""))
    await floor.apply()
    assert await floor.wishes() == {"dev-1": (Wish.RUN, 2), "dev-2": (Wish.RUN, 2)}
    other = await floor.apply(TEXT.replace("digits", "other"))
    assert (other.condition.state, other.condition.reason) == (DeploymentState.PENDING, "DeviceCordoned")
    await floor.change("dev-1", scheduling.uncordon)
    found = await floor.bench.store.transact(lambda tx: tx.workloads.of_deployment(other.id))
    assert [row.device_id for row in found] == ["dev-1"]


async def test_nothing_is_placed_where_all_is_drained_and_it_is_said_why(floor: Floor) -> None:
    for device in ("dev-1", "dev-2"):
        assert (await floor.drain(device)).scheduling is Scheduling.DRAINED
    made = await floor.apply()
    assert (made.condition.state, made.condition.reason) == (DeploymentState.PENDING, "DeviceDrained")
    assert await floor.wishes() == {}


async def test_a_deployment_is_deleted_from_a_drained_device_too(floor: Floor) -> None:
    made = await floor.apply()
    await floor.drain()
    await floor.says("dev-1", "STOPPED")
    await DeploymentService(floor.bench.store, floor.bench.service(), floor.bench.secrets).delete(made.id)
    assert (await floor.wishes())["dev-1"] == (Wish.DELETE, 1)
    assert (await floor.device("dev-1")).scheduling is Scheduling.DRAINED
    await floor.says("dev-1")
    assert "dev-1" not in await floor.wishes()


async def test_a_drained_device_is_told_to_stop_also_when_the_secrets_of_its_revision_are_gone(floor: Floor) -> None:
    await floor.apply(SECRET, token=b"x")
    await floor.drain()
    await floor.apply(SECRET, token=b"y")
    device = await floor.device("dev-1")
    told = await floor.bench.store.transact(lambda tx: desired_state(tx, device, floor.bench.secrets))
    assert [(one.stopped, one.problem, one.workload.revision) for one in told.workloads] == [(True, "", 1)]
    await floor.change("dev-1", scheduling.uncordon)
    device = await floor.device("dev-1")
    told = await floor.bench.store.transact(lambda tx: desired_state(tx, device, floor.bench.secrets))
    assert [one.workload.spec.secrets[0].content for one in told.workloads] == [b"y"]


async def test_deployments_follow_the_labels(floor: Floor) -> None:
    await floor.apply()
    await floor.change("dev-2", lambda tx, device: scheduling.relabel(tx, device, {"site": "roof"}))
    assert await floor.wishes() == {"dev-1": (Wish.RUN, 1), "dev-2": (Wish.DELETE, 1)}
    await floor.change("dev-2", lambda tx, device: scheduling.relabel(tx, device, {"site": "hall"}))
    assert await floor.wishes() == {"dev-1": (Wish.RUN, 1), "dev-2": (Wish.RUN, 1)}
    assert await floor.events() == ["LABELLED", "LABELLED"]
    labels = scheduling.changed_labels({"a": "1", "b": "2"}, {"b": "3", "c": "4"}, ["a", "x"])
    assert labels == {"b": "3", "c": "4"}


async def test_another_device_takes_the_place_of_a_drained_one_and_keeps_it(floor: Floor) -> None:
    await floor.apply(TEXT.replace("labels: {site: hall}", "labels: {site: hall}, replicas: 1"))
    assert await floor.wishes() == {"dev-1": (Wish.RUN, 1)}
    await floor.drain()
    assert await floor.wishes() == {"dev-1": (Wish.STOP, 1), "dev-2": (Wish.RUN, 1)}
    await floor.says("dev-2", "RUNNING")
    await floor.change("dev-1", lambda tx, device: scheduling.uncordon(tx, device))
    assert await floor.wishes() == {"dev-1": (Wish.DELETE, 1), "dev-2": (Wish.RUN, 1)}
    await floor.apply(TEXT.replace("labels: {site: hall}", "labels: {site: hall}, replicas: 1"))
    wishes = await floor.wishes()
    assert wishes["dev-2"] == (Wish.RUN, 2)
    assert wishes["dev-1"][0] is Wish.DELETE


async def test_more_replicas_than_devices_are_told_however_well_they_run(floor: Floor) -> None:
    await floor.apply(TEXT.replace("labels: {site: hall}", "labels: {site: hall}, replicas: 3"))
    for device in ("dev-1", "dev-2"):
        await floor.says(device, "RUNNING")
    now = (await floor.deployment()).condition
    assert (now.state, now.reason) == (DeploymentState.DEGRADED, "NotEnoughDevices")
    assert "targets[0] (asks for 3 devices, and 2 can run it)" in now.message
