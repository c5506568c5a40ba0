"""A disk that is nearly full lets no build begin, disturbs none that runs, and lets go by itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds import holding
from controller.builds.model import BuildState
from controller.housekeeping.space import Space
from tests.support.async_waiting import until
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import PROJECT
from tests.support.small_disk import MIB, small_disk

FULL = "the disk of the builder is nearly full"


@pytest.fixture
def builder() -> ScriptedBuilder:
    return ScriptedBuilder()


@pytest.fixture
async def bench(tmp_path: Path, builder: ScriptedBuilder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(holding, "LOOK_AGAIN", 0.05)
    async with open_bench(tmp_path, builder, reuse_hours=0) as opened:
        yield opened


async def test_a_build_waits_for_room_and_says_so_while_another_one_runs_on(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    await bench.add(1)
    async with bench.working():
        await bench.reaches("b-1", BuildState.BUILDING)
        bench.not_ready = FULL
        await bench.add(2)
        told = await bench.comes_to(lambda build: build.targets[0].reason == "DiskNearlyFull", "b-2")
        assert (told.targets[0].state, told.targets[0].message) == (BuildState.QUEUED, FULL)
        builder.gate.set()
        await bench.reaches("b-1", BuildState.SUCCEEDED)
        assert builder.begun == ["b-1"]
        bench.not_ready = ""
        ended = await bench.reaches("b-2", BuildState.SUCCEEDED)
    assert (ended.targets[0].reason, ended.targets[0].attempts) == ("", 1)


async def test_who_waits_for_another_reason_again_does_not_name_the_disk(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    """And what is said is said once, however often it is looked."""
    bench.parallel, bench.not_ready = 1, FULL
    await bench.add(1)
    await bench.add(2)
    async with bench.working():
        await bench.comes_to(lambda build: build.targets[0].reason == "DiskNearlyFull", "b-2")
        bench.not_ready = ""
        await bench.comes_to(lambda build: not build.targets[0].reason, "b-2")
        await until(lambda: builder.begun == ["b-1"])
        builder.gate.set()
        await bench.reaches("b-2", BuildState.SUCCEEDED)
    events, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, 0))
    told = [event.what.build_id for event in events if event.what.reason == "DiskNearlyFull"]
    assert sorted(told) == ["b-1", "b-2"]


async def test_what_a_controller_before_this_one_said_is_unsaid(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await bench.add(number)
    assert await holding.Hold(bench.store, lambda: FULL).holds(lambda: None)
    assert {(await bench.target(f"b-{number}")).reason for number in range(5)} == {"DiskNearlyFull"}
    monkeypatch.setattr(holding, "TOLD", 2)
    assert not await holding.Hold(bench.store, lambda: "").holds(lambda: None)
    assert {(await bench.target(f"b-{number}")).reason for number in range(5)} == {""}


@pytest.mark.podman
def test_a_real_disk_is_named_with_what_is_free_and_what_is_needed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        space = Space({"the data": tmp_path, "the builder": disk.path, "nothing": tmp_path / "absent"}, 4 * MIB)
        assert space.condition() == ""
        disk.fill(leave=2 * MIB)
        said = space.condition()
        assert f"the disk of the builder ({disk.path}) is nearly full: 2 MiB are free, 4 MiB have to be" in said
        disk.free_again()
        assert space.condition() == ""
        for number in range(15_000):
            (disk.path / str(number)).touch()
        assert "more files only" in space.condition()
