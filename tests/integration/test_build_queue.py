"""The queue of builds: order, parallel work, retry, restart. The builder here is scripted; the real one is tested by
`test_builder`, and both together end to end."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds import turns
from controller.builds.model import BuildFailed, BuildState
from controller.builds.order import Waiting
from controller.store.build_queue import BuildQueueTable
from tests.support.async_waiting import until
from tests.support.queueing import SPEC, Bench, ScriptedBuilder, open_bench
from tests.support.rows import PROJECT

QUEUED, BUILDING, SUCCEEDED, FAILED = BuildState.QUEUED, BuildState.BUILDING, BuildState.SUCCEEDED, BuildState.FAILED


@pytest.fixture
def builder() -> ScriptedBuilder:
    return ScriptedBuilder()


@pytest.fixture
async def bench(tmp_path: Path, builder: ScriptedBuilder) -> AsyncIterator[Bench]:
    # Identical builds would be answered by the first one.
    async with open_bench(tmp_path, builder, reuse_hours=0) as opened:
        yield opened


async def test_the_oldest_go_first_and_never_more_than_allowed_at_a_time(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    for number in (3, 1, 2, 4):
        await bench.add(number)
    async with bench.working():
        await until(lambda: len(builder.begun) == 2)
        builder.gate.set()
        for number in (1, 2, 3, 4):
            assert (await bench.reaches(f"b-{number}", SUCCEEDED)).targets[0].artifact is not None
    assert builder.begun == ["b-1", "b-2", "b-3", "b-4"]
    assert builder.busiest == 2


async def test_a_user_with_very_many_builds_does_not_delay_another_ones_first(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    for number in range(200):
        await bench.add(number)
    await bench.add(1000, "bob")
    async with bench.working():
        await until(lambda: len(builder.begun) == 2)
    assert builder.begun == ["b-0", "b-1000"]


async def test_no_user_has_more_at_a_time_than_a_user_may(bench: Bench, builder: ScriptedBuilder) -> None:
    bench.parallel, bench.per_user = 4, 1
    for number in range(3):
        await bench.add(number)
    await bench.add(10, "bob")
    async with bench.working():
        await until(lambda: len(builder.busy) == 2)
        builder.gate.set()
        for name in ("b-0", "b-1", "b-2", "b-10"):
            await bench.reaches(name, SUCCEEDED)
    assert builder.begun[:2] == ["b-0", "b-10"]


async def test_what_no_builder_takes_waits_without_delaying_the_others_until_a_slot_is_free(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    builder.held.add("arm64-cpu")
    builder.gate.set()
    await bench.add(1, profiles=("arm64-cpu",))
    await bench.add(2)
    async with bench.working():
        await bench.reaches("b-2", SUCCEEDED)
        assert (await bench.found("b-1")).state is QUEUED
        builder.free("arm64-cpu")
        await bench.reaches("b-1", SUCCEEDED)


async def test_the_position_says_how_many_begin_before(bench: Bench, builder: ScriptedBuilder) -> None:
    for number in range(1, 5):
        await bench.add(number)
    await bench.add(10, "bob")
    async with bench.working():
        await until(lambda: len(builder.busy) == 2)
        service = bench.service()
        waiting = await service.positions([await service.get("b-3")])
    # One of alice and one of bob run; then they take turns.
    assert builder.begun == ["b-1", "b-10"]
    assert waiting == {("b-2", "x86-cpu"): 1, ("b-3", "x86-cpu"): 2, ("b-4", "x86-cpu"): 3}
    assert await bench.service().positions([]) == {}


async def test_what_may_succeed_later_is_tried_again_and_says_why_it_waits(
    bench: Bench, builder: ScriptedBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "RETRY_FIRST", 0.05)
    builder.failures = [BuildFailed("RegistryUnreachable", "registry:5000 does not answer", retryable=True)]
    builder.gate.set()
    await bench.add(1)
    async with bench.working():
        ended = (await bench.reaches("b-1", SUCCEEDED)).targets[0]
    assert (ended.reason, ended.attempts) == ("", 2)
    events, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert "RegistryUnreachable" in [event.what.reason for event in events]


async def test_what_does_not_pass_for_too_long_fails_with_its_last_reason_but_not_at_once(
    bench: Bench, builder: ScriptedBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "RETRY_FIRST", 0.05)
    bench.retry_seconds = 0
    builder.failures = [BuildFailed("RegistryUnreachable", "registry:5000 does not answer", retryable=True)] * 4
    builder.gate.set()
    await bench.add(1)
    async with bench.working():
        ended = (await bench.reaches("b-1", FAILED)).targets[0]
    assert ended.reason == "RegistryUnreachable"
    assert ended.message == "registry:5000 does not answer (given up after 3 tries)"


async def test_a_target_whose_time_comes_while_the_queue_looks_is_not_forgotten(
    bench: Bench, builder: ScriptedBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "RETRY_FIRST", 0.3)
    due = BuildQueueTable.due

    def slow(table: BuildQueueTable, now: float, each: int, alike: bool = False) -> list[Waiting]:
        found = due(table, now, each, alike)
        time.sleep(0.2)  # as on a busy disk: the second try's time comes after the last look and before the pause
        return found

    monkeypatch.setattr(BuildQueueTable, "due", slow)
    builder.failures = [BuildFailed("RegistryUnreachable", "registry:5000 does not answer", retryable=True)]
    builder.gate.set()
    await bench.add(1)
    async with bench.working():
        await bench.reaches("b-1", SUCCEEDED)


async def test_what_fails_for_good_is_a_result_with_step_and_last_lines(bench: Bench, builder: ScriptedBuilder) -> None:
    builder.failures = [BuildFailed("PackageNotFound", "no package x", step="RUN apt-get", last_lines=("E: x",))]
    builder.gate.set()
    await bench.add(1)
    async with bench.working():
        ended = (await bench.reaches("b-1", FAILED)).targets[0]
    assert (ended.reason, ended.failed_step, ended.last_lines) == ("PackageNotFound", "RUN apt-get", ("E: x",))
    lines = await bench.lines("b-1")
    assert [line.number for line in lines] == [1, 2]
    assert lines[-1].text == "PackageNotFound: no package x"


async def test_a_target_that_takes_longer_than_it_may_fails_and_is_not_tried_again(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    await bench.add(1, spec=SPEC + b"build: {timeout: 1s}\n")
    async with bench.working():
        ended = (await bench.reaches("b-1", FAILED)).targets[0]
        assert builder.busy == []
    assert (ended.reason, ended.attempts) == ("TimedOut", 1)
    assert ended.message == "not done within 1 s; raise build.timeout, or make the build shorter"


async def test_a_controller_that_was_killed_takes_begun_targets_up_again(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    await bench.add(1)
    async with bench.working():
        await bench.reaches("b-1", BUILDING)
    assert (await bench.found("b-1")).state is BUILDING
    builder.gate.set()
    async with bench.working():
        await bench.reaches("b-1", SUCCEEDED)
    assert builder.recovered == 2
    assert builder.begun == ["b-1", "b-1"]


async def test_a_cancel_that_comes_together_with_new_work_ends_the_queue(bench: Bench) -> None:
    working = asyncio.create_task(bench.queue().run())
    await bench.add(1)
    await bench.reaches("b-1", BUILDING)
    await bench.add(2)
    await asyncio.sleep(0)  # the queue is woken, and has not gone on yet
    working.cancel()
    done, _ = await asyncio.wait({working}, timeout=10)
    assert done == {working}
