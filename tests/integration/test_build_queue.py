"""The queue of builds: order, parallel work, retry, restart. The builder here is scripted; the real one is tested by
`test_builder`, and both together end to end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds import queue as queue_module
from controller.builds.logs import BuildLogs
from controller.builds.model import (
    ArtifactKind,
    BuildFailed,
    BuildResult,
    BuildState,
    BuildTarget,
    OnLine,
    OnState,
    TargetJob,
)
from controller.builds.queue import BuildQueue
from controller.store import Store, open_store
from tests.support.async_waiting import until
from tests.support.rows import ARTIFACT, PROJECT, build

SPEC = b"""\
version: 1
name: digits
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: profile-0}]
"""


class ScriptedBuilder:
    """Builds take until they are let go; failures come from a list."""

    def __init__(self) -> None:
        self.recovered = 0
        self.begun: list[str] = []
        self.failures: list[BuildFailed] = []
        self.gate = asyncio.Event()
        self.busiest = self._busy = 0

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        return True

    def on_free(self, listener: Callable[[], None]) -> None: ...

    async def recover(self) -> None:
        self.recovered += 1

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        self.begun.append(job.build_id)
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        try:
            on_state(BuildState.PREPARING)
            on_line("stdout", f"building {job.name}")
            on_state(BuildState.BUILDING)
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
            on_state(BuildState.PUSHING)
            return BuildResult(replace(ARTIFACT, repository=job.repository))
        finally:
            self._busy -= 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")
    yield opened
    opened.close()


async def add(store: Store, number: int) -> None:
    made = replace(build(BuildState.QUEUED), id=f"b-{number}", spec=SPEC, created=float(number))
    await store.transact(lambda tx: tx.builds.add(made, ""))


async def target(store: Store, number: int) -> BuildTarget:
    found = await store.transact(lambda tx: tx.builds.get(f"b-{number}"))
    assert found is not None
    return found.targets[0]


class Running:
    """A queue that works until the block ends."""

    def __init__(self, store: Store, builder: ScriptedBuilder, logs: BuildLogs, parallel: int = 2) -> None:
        self._queue = BuildQueue(store, builder, logs, "registry:5000", parallel)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._queue.run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def reaches(store: Store, number: int, state: BuildState) -> BuildTarget:
    for _ in range(2000):
        found = await target(store, number)
        if found.state is state:
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"b-{number} is {found}")


async def test_the_oldest_go_first_and_never_more_than_allowed_at_a_time(store: Store, tmp_path: Path) -> None:
    builder = ScriptedBuilder()
    for number in (3, 1, 2, 4):
        await add(store, number)
    async with Running(store, builder, BuildLogs(tmp_path / "logs")):
        await until(lambda: len(builder.begun) == 2)
        builder.gate.set()
        for number in (1, 2, 3, 4):
            assert (await reaches(store, number, BuildState.SUCCEEDED)).artifact is not None
    # Two that are taken up at the same time reach the builder in either order.
    assert [set(builder.begun[:2]), set(builder.begun[2:])] == [{"b-1", "b-2"}, {"b-3", "b-4"}]
    assert builder.busiest == 2


async def test_what_may_succeed_later_is_tried_again_and_says_why_it_waits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "RETRY_FIRST", 0.05)
    builder = ScriptedBuilder()
    builder.failures = [BuildFailed("RegistryUnreachable", "registry:5000 does not answer", retryable=True)]
    builder.gate.set()
    await add(store, 1)
    async with Running(store, builder, BuildLogs(tmp_path / "logs")):
        ended = await reaches(store, 1, BuildState.SUCCEEDED)
    assert (ended.reason, ended.attempts) == ("", 2)
    events, _ = await store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert "RegistryUnreachable" in [event.what.reason for event in events]


async def test_what_fails_for_good_is_a_result_with_step_and_last_lines(store: Store, tmp_path: Path) -> None:
    builder, logs = ScriptedBuilder(), BuildLogs(tmp_path / "logs")
    builder.failures = [BuildFailed("PackageNotFound", "no package x", step="RUN apt-get", last_lines=("E: x",))]
    builder.gate.set()
    await add(store, 1)
    async with Running(store, builder, logs):
        ended = await reaches(store, 1, BuildState.FAILED)
    assert (ended.reason, ended.failed_step, ended.last_lines) == ("PackageNotFound", "RUN apt-get", ("E: x",))

    async def has_ended() -> bool:
        return True

    lines = [line async for line in logs.read("b-1", 0, True, has_ended)]
    assert [line.number for line in lines] == [1, 2]
    assert lines[-1].text == "PackageNotFound: no package x"


async def test_a_controller_that_was_killed_takes_begun_targets_up_again(store: Store, tmp_path: Path) -> None:
    builder, logs = ScriptedBuilder(), BuildLogs(tmp_path / "logs")
    await add(store, 1)
    async with Running(store, builder, logs):
        await reaches(store, 1, BuildState.BUILDING)
    assert (await target(store, 1)).state is BuildState.BUILDING
    builder.gate.set()
    async with Running(store, builder, logs):
        await reaches(store, 1, BuildState.SUCCEEDED)
    assert builder.recovered == 2
    assert builder.begun == ["b-1", "b-1"]


async def test_a_cancel_that_comes_together_with_new_work_ends_the_queue(store: Store, tmp_path: Path) -> None:
    builder = ScriptedBuilder()
    queue = BuildQueue(store, builder, BuildLogs(tmp_path / "logs"), "registry:5000", 2)
    working = asyncio.create_task(queue.run())
    await add(store, 1)
    await reaches(store, 1, BuildState.BUILDING)
    await add(store, 2)
    await asyncio.sleep(0)  # the queue is woken, and has not gone on yet
    working.cancel()
    done, _ = await asyncio.wait({working}, timeout=10)
    assert done == {working}
