"""Every promise of `edge_agent.runtime.backend`, as tests that run over each implementation.

A test module of an implementation subclasses `BackendContract` and gives the fixture `machine`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from edge_agent.runtime.backend import (
    BackendError,
    BackendUnavailable,
    DeployBackend,
    LogQuery,
    Phase,
    Progress,
    Stats,
)
from edge_agent.runtime.model import Workload
from tests.contract.exec_contract import OpenExec
from tests.contract.machine import (
    DEADLINE,
    Machine,
    Program,
    await_lines,
    await_observed,
    find,
    has_ended,
    ignore,
    launch,
    read,
)
from tests.support.async_waiting import until_holds

T = TypeVar("T")


class ProbeAndPrepare:
    async def test_probe_tells_name_and_version_and_no_problem(self, machine: Machine) -> None:
        facts = await machine.backend.probe()
        assert facts.name
        assert facts.version
        assert facts.problem == ""

    async def test_probe_of_an_engine_that_is_down_names_the_problem(self, machine: Machine) -> None:
        async with machine.engine_down():
            facts = await machine.backend.probe()
        reason, _, sentence = facts.problem.partition(": ")
        assert reason.endswith("Unavailable")
        assert sentence

    async def test_prepare_reports_growing_progress_up_to_all_bytes(self, machine: Machine) -> None:
        seen: list[Progress] = []
        await machine.backend.prepare(await machine.fresh_image(machine.workload(Program.POLITE)), seen.append)
        fetched = [progress.fetched_bytes for progress in seen]
        assert fetched == sorted(fetched)
        assert fetched[-1] == seen[-1].total_bytes > 0

    async def test_second_prepare_fetches_nothing(self, machine: Machine) -> None:
        workload = machine.workload(Program.POLITE)
        await machine.backend.prepare(workload, ignore)
        seen: list[Progress] = []
        await machine.backend.prepare(workload, seen.append)
        assert seen == []

    async def test_two_prepares_of_one_image_at_once_both_succeed(self, machine: Machine) -> None:
        workload = await machine.fresh_image(machine.workload(Program.POLITE))
        await asyncio.gather(*(machine.backend.prepare(workload, ignore) for _ in range(2)))
        handle = await machine.backend.start(workload)
        assert await find(machine.backend, handle) is not None

    async def test_artifact_that_does_not_exist_is_a_final_error(self, machine: Machine) -> None:
        with pytest.raises(BackendError) as caught:
            await machine.backend.prepare(machine.missing(), ignore)
        assert (caught.value.reason, caught.value.retryable) == ("ImageNotFound", False)

    async def test_registry_that_does_not_answer_is_a_retryable_error(self, machine: Machine) -> None:
        with pytest.raises(BackendError) as caught:
            await machine.backend.prepare(machine.unreachable(), ignore)
        assert (caught.value.reason, caught.value.retryable) == ("ImagePullFailed", True)

    async def test_artifact_for_another_processor_is_a_final_error(self, machine: Machine) -> None:
        with pytest.raises(BackendError) as caught:
            await machine.backend.prepare(machine.foreign(), ignore)
        assert (caught.value.reason, caught.value.retryable) == ("WrongArchitecture", False)

    async def test_engine_that_is_down_makes_prepare_and_start_unavailable(self, machine: Machine) -> None:
        workload = await machine.fresh_image(machine.workload(Program.POLITE))
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with machine.engine_down():
            with pytest.raises(BackendUnavailable):
                await machine.backend.prepare(workload, ignore)
            with pytest.raises(BackendUnavailable):
                await machine.backend.start(workload)
        seen = await await_observed(machine.backend, handle, lambda seen: seen.phase is Phase.RUNNING)
        assert seen.exit_code is None


class Start:
    async def test_started_instance_is_listed_as_running_with_what_it_is(self, machine: Machine) -> None:
        before = time.time()
        workload = machine.workload(Program.POLITE, revision=7)
        handle = await launch(machine, workload)
        (seen,) = await machine.backend.list()
        assert (seen.handle, seen.phase, seen.exit_code) == (handle, Phase.RUNNING, None)
        assert (seen.deployment_id, seen.revision) == (workload.deployment_id, 7)
        assert seen.artifact_digest == workload.artifact.digest
        assert before - 2 < seen.started_at < time.time() + 2

    async def test_start_of_what_was_not_prepared_leaves_nothing(self, machine: Machine) -> None:
        workload = await machine.fresh_image(machine.workload(Program.POLITE))
        with pytest.raises(BackendError) as caught:
            await machine.backend.start(workload)
        assert (caught.value.reason, caught.value.retryable) == ("NotPrepared", False)
        assert await machine.backend.list() == []

    async def test_command_that_does_not_exist_is_a_final_error_and_leaves_nothing(self, machine: Machine) -> None:
        with pytest.raises(BackendError) as caught:
            await launch(machine, machine.workload(Program.NO_COMMAND))
        assert (caught.value.reason, caught.value.retryable) == ("CommandNotFound", False)
        assert await machine.backend.list() == []

    async def test_taken_port_is_a_retryable_error_that_names_it_and_leaves_nothing(self, machine: Machine) -> None:
        async with machine.taken_port() as port:
            workload = machine.workload(Program.SERVES, host_port=port)
            with pytest.raises(BackendError) as caught:
                await launch(machine, workload)
            assert (caught.value.reason, caught.value.retryable) == ("PortInUse", True)
            assert str(port) in caught.value.message
            assert await machine.backend.list() == []
        handle = await machine.backend.start(workload)
        assert await find(machine.backend, handle) is not None

    async def test_wished_port_is_the_one_that_is_reported(self, machine: Machine) -> None:
        port = await machine.free_port()
        handle = await launch(machine, machine.workload(Program.SERVES, host_port=port))
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert dict(seen.addresses)["http"][1] == port

    async def test_ports_that_the_device_picks_differ(self, machine: Machine) -> None:
        for _ in range(2):
            await launch(machine, machine.workload(Program.SERVES, host_port=0))
        addresses = [dict(seen.addresses)["http"] for seen in await machine.backend.list()]
        assert len(set(addresses)) == 2

    async def test_leftover_that_does_not_run_is_replaced(self, machine: Machine) -> None:
        workload = machine.workload(Program.FAILS)
        first = await launch(machine, workload)
        await await_observed(machine.backend, first, has_ended)
        second = await machine.backend.start(workload)
        assert [seen.handle for seen in await machine.backend.list()] == [second]

    async def test_leftover_that_runs_is_not_touched(self, machine: Machine) -> None:
        workload = machine.workload(Program.POLITE)
        handle = await launch(machine, workload)
        with pytest.raises(BackendError) as caught:
            await machine.backend.start(workload)
        assert caught.value.reason == "AlreadyRunning"
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert seen.phase is Phase.RUNNING

    async def test_several_starts_at_once_are_all_listed(self, machine: Machine) -> None:
        workloads = [machine.workload(Program.POLITE) for _ in range(4)]
        await machine.backend.prepare(workloads[0], ignore)
        listing = asyncio.gather(*(machine.backend.list() for _ in range(3)))
        handles = await asyncio.gather(*(machine.backend.start(workload) for workload in workloads))
        await listing
        seen = await machine.backend.list()
        assert {one.handle for one in seen} == set(handles)
        assert {one.phase for one in seen} == {Phase.RUNNING}


class ListAndWatch:
    async def test_instance_that_ends_is_listed_with_its_exit_code_and_time(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.FAILS))
        seen = await await_observed(machine.backend, handle, has_ended)
        assert seen.exit_code == 3
        assert seen.finished_at >= seen.started_at > 0
        assert seen.addresses == ()

    async def test_instance_that_is_killed_is_listed_as_ended(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        await machine.kill(handle)
        seen = await await_observed(machine.backend, handle, has_ended)
        assert seen.exit_code == 137

    async def test_other_agents_instances_are_not_seen_and_not_touched(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        async with machine.other_owner() as other:
            assert await other.list() == []
            await other.stop(handle, 0)
            await other.remove(handle)
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert seen.phase is Phase.RUNNING

    async def test_agent_that_was_killed_adopts_its_instances_again(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        before = await find(machine.backend, handle)
        await machine.restart_agent()
        assert list(await machine.backend.list()) == [before]
        await machine.backend.stop(handle, 5)
        assert has_ended(await await_observed(machine.backend, handle, has_ended))

    async def test_death_is_hinted_at_once(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        hints = machine.backend.watch()
        hint = await begin(next_hint(hints))
        await machine.backend.list()
        await machine.kill(handle)
        async with asyncio.timeout(2):
            await hint
        assert has_ended(await await_observed(machine.backend, handle, has_ended))
        await close(hints)

    async def test_death_is_hinted_at_without_anybody_listing(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.FAILS_SOON))
        hints = machine.backend.watch()
        async with asyncio.timeout(30):
            await next_hint(hints)
        (seen,) = await machine.backend.list()
        assert (seen.handle, seen.exit_code) == (handle, 7)
        await close(hints)

    async def test_death_of_an_adopted_instance_is_hinted(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        await machine.restart_agent()
        await machine.backend.list()
        hints = machine.backend.watch()
        hint = await begin(next_hint(hints))
        await machine.backend.list()
        await machine.kill(handle)
        async with asyncio.timeout(2):
            await hint
        assert has_ended(await await_observed(machine.backend, handle, has_ended))
        await close(hints)


class StopAndRemove:
    async def test_stopped_instance_has_ended_and_a_second_stop_changes_nothing(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        begun = time.monotonic()
        await machine.backend.stop(handle, 15)
        assert time.monotonic() - begun < 10
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert has_ended(seen)
        assert seen.exit_code is not None
        await machine.backend.stop(handle, 15)
        assert await find(machine.backend, handle) == seen

    async def test_instance_that_ignores_term_is_killed_after_the_grace(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.STUBBORN))
        await await_lines(machine.backend, handle, 1)
        begun = time.monotonic()
        await machine.backend.stop(handle, 0.5)
        assert time.monotonic() - begun >= 0.5
        assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 137

    async def test_removal_kills_what_runs_and_leaves_nothing(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.STUBBORN))
        await machine.backend.remove(handle)
        assert await machine.backend.list() == []
        with pytest.raises(BackendError) as caught:
            await read(machine.backend.logs(handle, LogQuery()))
        assert caught.value.reason == "NoSuchInstance"

    async def test_stop_and_removal_of_what_is_gone_succeed(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.FAILS))
        await machine.backend.remove(handle)
        await machine.backend.remove(handle)
        await machine.backend.stop(handle, 1)
        assert await machine.backend.list() == []


class Logs:
    async def test_lines_come_in_order_and_outlive_the_instance(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.WRITES))
        expected = [f"line {number}" for number in range(1, 6)]
        assert await await_lines(machine.backend, handle, 5) == expected
        await machine.backend.stop(handle, 5)
        assert await read(machine.backend.logs(handle, LogQuery())) == expected

    async def test_tail_gives_the_last_lines(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.WRITES))
        await await_lines(machine.backend, handle, 5)
        assert await read(machine.backend.logs(handle, LogQuery(tail=2))) == ["line 4", "line 5"]

    async def test_since_leaves_out_what_is_older(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.WRITES))
        await await_lines(machine.backend, handle, 5)
        lines = [line async for line in machine.backend.logs(handle, LogQuery())]
        assert {line.stream for line in lines} == {"stdout"}
        newer = await read(machine.backend.logs(handle, LogQuery(since=lines[-1].time + 0.001)))
        assert newer == []

    async def test_follower_gets_what_was_and_ends_with_the_removal(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.WRITES))
        following = await begin(read(machine.backend.logs(handle, LogQuery(follow=True))))
        await await_lines(machine.backend, handle, 5)
        await machine.backend.stop(handle, 5)
        assert not following.done()
        await machine.backend.remove(handle)
        async with asyncio.timeout(DEADLINE):
            assert await following == [f"line {number}" for number in range(1, 6)]


class ExecAndStats:
    async def test_command_inside_gives_its_output_and_exit_code(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        result = await machine.backend.exec(handle, ["sh", "-c", "echo out; exit 4"], 10)
        assert (result.exit_code, result.output) == (4, b"out\n")

    async def test_command_that_takes_too_long_is_killed(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        with pytest.raises(BackendError) as caught:
            await machine.backend.exec(handle, ["sleep", "1000"], 0.5)
        assert (caught.value.reason, caught.value.retryable) == ("ExecTimeout", True)
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert seen.phase is Phase.RUNNING

    async def test_command_in_what_does_not_run_is_refused(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.FAILS))
        await await_observed(machine.backend, handle, has_ended)
        with pytest.raises(BackendError) as caught:
            await machine.backend.exec(handle, ["true"], 5)
        assert (caught.value.reason, caught.value.retryable) == ("NotRunning", True)

    async def test_a_port_is_listened_at_only_while_something_inside_does(self, machine: Machine) -> None:
        silent = await launch(machine, machine.workload(Program.POLITE, host_port=0))
        serving = await launch(machine, machine.workload(Program.SERVES, host_port=0))

        async def heard() -> bool:
            return await machine.backend.listens(serving, "http") is not False

        assert not await machine.backend.listens(silent, "http")
        await until_holds(heard)
        await machine.backend.stop(serving, 5)
        assert await machine.backend.listens(serving, "http") is False

    async def test_stats_tell_time_and_memory_while_it_runs(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.POLITE))
        stats = await machine.backend.stats(handle)
        assert stats.cpu_millis >= 0
        assert stats.memory_peak_kib >= stats.memory_kib > 0
        await machine.backend.stop(handle, 5)
        with pytest.raises(BackendError) as caught:
            await machine.backend.stats(handle)
        assert (caught.value.reason, caught.value.retryable) == ("NotRunning", True)

    async def test_counters_grow_while_it_works_and_survive_the_agent(self, machine: Machine) -> None:
        handle = await launch(machine, machine.workload(Program.WORKS))
        first = await machine.backend.stats(handle)

        async def grown() -> bool:
            now = await machine.backend.stats(handle)
            return now.cpu_millis > first.cpu_millis and now.memory_peak_kib >= first.memory_peak_kib > 0

        await until_holds(grown)
        before = await machine.backend.stats(handle)
        await machine.restart_agent()
        after = await machine.backend.stats(handle)
        assert_no_less(before, after)


class Prune:
    async def test_prune_removes_only_what_is_neither_kept_nor_used(self, machine: Machine) -> None:
        used, kept, unneeded = [await machine.fresh_image(machine.workload(Program.POLITE)) for _ in range(3)]
        handle = await launch(machine, used)
        for workload in (kept, unneeded):
            await machine.backend.prepare(workload, ignore)
        await machine.backend.prune(frozenset([kept.artifact.digest]))
        assert await is_prepared(machine.backend, kept)
        assert not await is_prepared(machine.backend, unneeded)
        seen = await find(machine.backend, handle)
        assert seen is not None
        assert seen.phase is Phase.RUNNING
        await machine.backend.remove(handle)
        assert await is_prepared(machine.backend, used)

    async def test_prune_leaves_what_another_agent_fetched(self, machine: Machine) -> None:
        workload = await machine.fresh_image(machine.workload(Program.POLITE))
        async with machine.other_owner() as other:
            await other.prepare(workload, ignore)
            await machine.backend.prepare(workload, ignore)
            await machine.backend.prune(frozenset())
            assert await is_prepared(other, workload)


class BackendContract(ProbeAndPrepare, Start, ListAndWatch, StopAndRemove, Logs, ExecAndStats, OpenExec, Prune):
    """All promises."""


def assert_no_less(before: Stats, after: Stats) -> None:
    """What is counted since the start only grows."""
    counters = {name for name in vars(before) if name != "memory_kib"}
    assert {name for name in counters if getattr(after, name) < getattr(before, name)} == set()


async def is_prepared(backend: DeployBackend, workload: Workload) -> bool:
    """Whether it can be started without a fetch. Starts it for a moment."""
    try:
        handle = await backend.start(workload)
    except BackendError as error:
        if error.reason == "NotPrepared":
            return False
        raise
    await backend.remove(handle)
    return True


async def begin(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Afterwards it has run up to its first wait."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def next_hint(hints: AsyncIterator[None]) -> None:
    await anext(hints)


async def close(iterator: AsyncIterator[None]) -> None:
    closing = getattr(iterator, "aclose", None)
    assert closing is not None
    with contextlib.suppress(RuntimeError):
        await closing()
