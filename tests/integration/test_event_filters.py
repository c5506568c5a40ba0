"""What a filtered look at the store shows, and what it leaves out."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.deployments.assess import reassess
from controller.deployments.model import DeploymentState, Wish, WorkloadRow
from controller.devices.model import Device, Presence
from controller.events.model import EventKind, NewEvent, Wanted
from controller.store import Store, Transaction, open_store
from tests.support.rows import ARTIFACT, PROJECT, build, deployment, instance

# More devices than a page of a list has entries.
FLEET = 1001


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")
    yield opened
    opened.close()


async def test_events_of_one_build_are_without_those_of_others(store: Store) -> None:
    def append(tx: Transaction) -> list[str]:
        for build_id in ("b-1", "b-2", "b-1"):
            tx.events.append(NewEvent(PROJECT, EventKind.BUILD, "QUEUED", build_id=build_id))
        tx.events.append(NewEvent(PROJECT, EventKind.DEPLOYMENT, "BUILDING", build_id="b-1", deployment_id="dep-1"))
        events, _ = tx.events.after(PROJECT, 0, Wanted(build_ids=["b-1"]))
        return [event.what.build_id for event in events]

    assert await store.transact(append) == ["b-1", "b-1", "b-1"]


async def test_a_fleet_is_ready_only_when_its_last_device_is(store: Store) -> None:
    def fill(tx: Transaction) -> None:
        tx.builds.add(build(BuildState.SUCCEEDED), "")
        tx.deployments.add(deployment())
        for number in range(FLEET):
            key = f"dev-{number:04}"
            tx.devices.add(Device(key, key, "x86-cpu", 1.0, presence=Presence.ONLINE))
            tx.workloads.put(WorkloadRow("dep-1", key, 1, Wish.RUN, ARTIFACT, b""))
            if number < FLEET - 1:
                tx.workloads.put_instance(replace(instance(), device_id=key))

    await store.transact(fill)
    found = await store.transact(lambda tx: reassess(tx, deployment()).condition)
    assert found.state is DeploymentState.PROGRESSING
    assert found.message == f"{FLEET - 1} of {FLEET} instances ready"
