"""Cancelling builds: the wish is durable first, then what runs is ended, and nothing is built after all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds.model import BuildFailed, BuildState
from controller.errors import NotFound
from tests.support.async_waiting import until
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import PROJECT

CANCELLED = BuildState.CANCELLED
TWO = ("x86-cpu", "arm64-cpu")


@pytest.fixture
def builder() -> ScriptedBuilder:
    return ScriptedBuilder()


@pytest.fixture
async def bench(tmp_path: Path, builder: ScriptedBuilder) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, builder, reuse_hours=0) as opened:
        yield opened


async def events(bench: Bench) -> list[tuple[str, str]]:
    found, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, 0))
    return [(event.what.state, event.what.message) for event in found]


async def test_a_waiting_build_is_cancelled_at_once_and_never_begins(bench: Bench, builder: ScriptedBuilder) -> None:
    await bench.add(1)
    cancelled = await bench.service().cancel("b-1")
    assert (cancelled.state, cancelled.cancel_requested) == (CANCELLED, True)
    assert (cancelled.targets[0].reason, cancelled.ended > 0) == ("Cancelled", True)
    await bench.add(2)
    builder.gate.set()
    async with bench.working():
        await bench.reaches("b-2", BuildState.SUCCEEDED)
    assert builder.begun == ["b-2"]
    states = [state for state, _ in await events(bench)]
    assert states[0] == CANCELLED


async def test_a_running_target_is_cancelled_once_nothing_of_it_runs_any_more(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    bench.parallel = 1
    await bench.add(1, profiles=TWO)
    async with bench.working():
        await until(lambda: len(builder.busy) == 1)
        asked = await bench.service().cancel("b-1")
        assert [target.state for target in asked.targets][1] is CANCELLED
        ended = await bench.reaches("b-1", CANCELLED)
        assert builder.busy == []
    assert (builder.ended_early, builder.stopped) == (["b-1"], [])
    assert {target.state for target in ended.targets} == {CANCELLED}
    texts = [line.text for line in await bench.lines("b-1")]
    assert "somebody asked to cancel this build" in texts
    assert "cancelled by request" in texts


async def test_a_build_is_told_that_its_end_is_the_controllers_and_no_wish_of_its_user(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    await bench.add(1)
    async with bench.working():
        await until(lambda: len(builder.busy) == 1)
    assert builder.stopped == ["b-1"]
    assert (await bench.target("b-1")).state is BuildState.BUILDING


async def test_what_has_succeeded_stays_so(bench: Bench, builder: ScriptedBuilder) -> None:
    bench.parallel = 1
    builder.gate.set()
    builder.held.add("arm64-cpu")
    await bench.add(1, profiles=TWO)
    async with bench.working():
        await bench.comes_to(lambda build: build.targets[0].state is BuildState.SUCCEEDED, "b-1")
        ended = await bench.service().cancel("b-1")
    assert [target.state for target in ended.targets] == [BuildState.SUCCEEDED, CANCELLED]
    assert ended.state is CANCELLED


async def test_a_second_cancel_and_one_of_a_build_that_has_ended_are_harmless(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    await bench.add(1)
    first = await bench.service().cancel("b-1")
    assert await bench.service().cancel("b-1") == first
    builder.gate.set()
    await bench.add(2)
    async with bench.working():
        done = await bench.reaches("b-2", BuildState.SUCCEEDED)
    assert await bench.service().cancel("b-2") == done
    with pytest.raises(NotFound):
        await bench.service().cancel("b-3")


async def test_a_wish_that_a_killed_controller_took_is_fulfilled_by_the_next_one(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    await bench.add(1)
    async with bench.working():
        await bench.reaches("b-1", BuildState.BUILDING)
    # The queue is gone, and what it was building is begun for ever unless somebody takes it up.
    assert (await bench.service().cancel("b-1")).state is BuildState.BUILDING
    async with bench.working():
        await bench.reaches("b-1", CANCELLED)
    assert builder.begun == ["b-1"]


async def test_what_waits_for_its_next_try_is_cancelled(bench: Bench, builder: ScriptedBuilder) -> None:
    builder.failures = [BuildFailed("RegistryUnreachable", "registry:5000 does not answer", retryable=True)]
    builder.gate.set()
    await bench.add(1)
    async with bench.working():
        await bench.comes_to(lambda build: build.targets[0].reason == "RegistryUnreachable", "b-1")
        ended = await bench.service().cancel("b-1")
    assert ended.state is CANCELLED
