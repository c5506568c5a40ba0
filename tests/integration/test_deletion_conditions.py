"""What a deployment is said to be once a device on which it counted is deleted."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.deployments.assess import reassess
from controller.deployments.model import Condition, DeploymentState, LeftOut, Wish
from controller.deployments.placing import place, withdraw
from controller.devices.model import Device, Presence
from controller.devices.service import delete
from controller.store import DeviceDeleted, Signal, Store, Transaction, open_store
from tests.support.rows import ARTIFACT, build, deployment, instance

SPEC = b"""
version: 1
name: digits
build: {base: "registry.invalid/digits:1"}
deploy: {checks: {readiness: {command: {command: [test, -e, /ready]}}}}
targets: [{profile: x86-cpu}]
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A deployment that is ready on two devices."""
    opened = open_store(tmp_path / "controller.db")

    def fill(tx: Transaction) -> None:
        built = build(BuildState.SUCCEEDED)
        target = replace(built.targets[0], key="x86-cpu", profile="x86-cpu", artifact=ARTIFACT)
        tx.builds.add(replace(built, targets=(target,)), "")
        tx.deployments.add(replace(deployment(), spec=SPEC))
        for device in ("dev-1", "dev-2"):
            tx.devices.add(Device(device, f"name of {device}", "x86-cpu", 1.0, presence=Presence.ONLINE))
        wished = tx.deployments.get("dep-1")
        assert wished is not None
        place(tx, wished)
        for device in ("dev-1", "dev-2"):
            tx.workloads.put_instance(replace(instance(), device_id=device))
        reassess(tx, wished)

    await opened.transact(fill)
    yield opened
    opened.close()


async def condition(store: Store) -> Condition:
    found = await store.transact(lambda tx: tx.deployments.get("dep-1"))
    assert found is not None
    return found.condition


def gone(tx: Transaction, device_id: str) -> None:
    device = tx.devices.get(device_id)
    assert device is not None
    delete(tx, device)


async def test_a_deployment_counts_on_the_devices_that_are_left(store: Store) -> None:
    assert (await condition(store)).message == "2 of 2 instances ready"
    heard: list[Signal] = []
    store.subscribe(heard.append)
    await store.transact(lambda tx: gone(tx, "dev-1"))
    assert (await condition(store)).message == "1 of 1 instances ready"
    assert [entry for entry in heard if isinstance(entry, DeviceDeleted)] == [DeviceDeleted("dev-1")]
    await store.transact(lambda tx: gone(tx, "dev-2"))
    now = await condition(store)
    assert (now.state, now.reason) == (DeploymentState.PENDING, "NoMatchingDevice")
    assert await store.transact(lambda tx: tx.workloads.placements()) == []


async def test_a_deletion_waits_for_no_device_that_was_deleted(store: Store) -> None:
    def unwish(tx: Transaction) -> None:
        found = tx.deployments.get("dep-1")
        assert found is not None
        found = replace(found, wish=Wish.DELETE)
        tx.deployments.change(found)
        withdraw(tx, found)
        tx.devices.change("dev-1", presence=Presence.OFFLINE.value)
        tx.workloads.remove("dep-1", "dev-2")
        reassess(tx, found)

    await store.transact(unwish)
    assert (await condition(store)).reason == "WaitingForDevice"
    await store.transact(lambda tx: gone(tx, "dev-1"))
    assert (await condition(store)).state is DeploymentState.DELETED


async def test_a_device_that_was_left_out_is_named_no_more(store: Store) -> None:
    def leave_out(tx: Transaction) -> None:
        found = tx.deployments.get("dep-1")
        assert found is not None
        tx.workloads.remove("dep-1", "dev-1")
        tx.deployments.change(replace(found, left_out=(LeftOut("name of dev-1", "TooSmall", "it has 1 CPU"),)))

    await store.transact(leave_out)
    await store.transact(lambda tx: gone(tx, "dev-1"))
    found = await store.transact(lambda tx: tx.deployments.get("dep-1"))
    assert found is not None
    assert found.left_out == ()
    assert found.condition.message == "1 of 1 instances ready"
