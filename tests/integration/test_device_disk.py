"""A device whose disk fills up, with a real small disk: it says so, tidies up at once, and keeps what runs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.disk_watch import DiskWatch
from edge_agent.runtime.model import State
from tests.integration.fake_fixtures import device
from tests.support.agent_on_fake import Agent, Device
from tests.support.small_disk import MIB, SmallDisk, small_disk
from tests.support.workloads import digest_of, make_workload, until

__all__ = ["device"]

pytestmark = pytest.mark.podman  # needs root
# Pruning that is not urgent does not happen in the time of a test.
OPTIONS = {"prune_after_quiet": 10_000.0, "prune_interval": 10_000.0}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 400) as made:
        yield made


@asynccontextmanager
async def watched(device: Device, disk: SmallDisk) -> AsyncIterator[Agent]:
    async with device.agent(**OPTIONS) as agent:
        watch = DiskWatch(lambda: [disk.path / "state", disk.path / "store"], agent.reconciler.set_disk_problem, 0.02)
        task = asyncio.create_task(watch.run())
        try:
            yield agent
            assert not task.done(), task.exception()
        finally:
            task.cancel()


async def test_a_disk_that_is_nearly_full_is_told_with_numbers_until_there_is_room_again(
    device: Device, disk: SmallDisk
) -> None:
    device.image(1)
    async with watched(device, disk) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        assert agent.reconciler.condition == ""
        disk.fill(leave=80 * MIB)
        await until(lambda: agent.reconciler.condition.startswith("DiskNearlyFull: "))
        said = f"64 MiB of 400 MiB are free at {disk.path}, 100 MiB should be"
        assert said in agent.reconciler.condition
        disk.fill(leave=MIB)
        await until(lambda: "less than 64 MiB of 400 MiB" in agent.reconciler.condition)
        assert agent.shows(State.RUNNING)
        assert device.instance().runs
        disk.free_again()
        await until(lambda: agent.reconciler.condition == "")
        assert len(device.engine.of("d1")) == 1


async def test_what_nothing_needs_is_removed_at_once_while_the_disk_is_nearly_full(
    device: Device, disk: SmallDisk
) -> None:
    for revision in (1, 2, 3):
        device.image(revision)
    async with watched(device, disk) as agent:
        for revision in (1, 2, 3):
            agent.wish(make_workload(revision=revision))
            await agent.until_ready(revision=revision)
        assert len(device.engine.present) == 3
        disk.fill(leave=MIB)
        await until(lambda: digest_of(1) not in device.engine.present)
        # The one that runs, and the one before it.
        assert device.engine.present == {digest_of(2), digest_of(3)}
        assert device.instance().workload.revision == 3


async def test_tidying_up_that_fails_is_not_tried_again_and_again(device: Device, disk: SmallDisk) -> None:
    device.image(1)
    device.engine.fail_next("prune", BackendError("RemoveFailed", "it is stuck", retryable=True))
    async with watched(device, disk) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        disk.fill(leave=MIB)
        await until(lambda: ("prune", "") in device.engine.calls)
        for _ in range(20):
            agent.reconciler.wake()
            await asyncio.sleep(0.01)
        assert device.engine.calls.count(("prune", "")) == 1
