"""The queue of builds where its own memory fails, and where somebody reads along."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds import attempt
from controller.builds.logs import BuildLogs
from controller.builds.model import ArtifactKind, BuildResult, BuildState, BuildTarget, OnLine, OnState, TargetJob
from controller.builds.queue import QueueBroken
from controller.store import Transaction
from tests.support.queueing import Bench, open_bench
from tests.support.rows import ARTIFACT


class QuickBuilder:
    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        return True

    def on_free(self, listener: Callable[[], None]) -> None: ...

    async def recover(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        on_line("stdout", "one line")
        return BuildResult(replace(ARTIFACT, repository=job.repository))


class SelfCancellingBuilder(QuickBuilder):
    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        raise asyncio.CancelledError


class LogsOfOneThread(BuildLogs):
    """Lines that two threads write at the same moment would get the same number."""

    def append(self, build_id: str, profile: str, stream: str, text: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        super().append(build_id, profile, stream, text)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, QuickBuilder()) as opened:
        await opened.add(1)
        yield opened


async def test_an_outcome_that_cannot_be_stored_ends_the_queue_instead_of_hanging(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tx: Transaction, build_id: str, outcome: BuildTarget) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(attempt, "store_outcome", refuse)
    with pytest.raises(QueueBroken):
        await asyncio.wait_for(bench.queue().run(), 10)


async def test_a_follower_reads_to_the_end_while_outcomes_are_stored(bench: Bench, tmp_path: Path) -> None:
    bench.logs = logs = LogsOfOneThread(tmp_path / "logs-of-one-thread")

    async def ended() -> bool:
        return (await bench.found("b-1")).ended > 0

    async def follow() -> list[str]:
        return [line.text async for line in logs.read("b-1", 1, follow=True, ended=ended)]

    async with bench.working():
        lines = await asyncio.wait_for(follow(), 10)
    # What was pushed is the builder's to say.
    assert lines == ["one line", "succeeded"]


async def test_a_builder_that_cancels_itself_leaves_no_target_begun_for_ever(bench: Bench) -> None:
    bench.builder = SelfCancellingBuilder()
    async with bench.working():
        ended = await bench.reaches("b-1", BuildState.FAILED)
    assert ended.targets[0].reason == "InternalError"
