"""The queue of builds where its own memory fails, and where somebody reads along."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.logs import BuildLogs
from controller.builds.model import ArtifactKind, BuildResult, BuildState, BuildTarget, OnLine, OnState, TargetJob
from controller.builds.queue import BuildQueue, QueueBroken
from controller.store import Store, Transaction, open_store
from tests.support.rows import ARTIFACT, build

SPEC = b"""\
version: 1
name: digits
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: profile-0}]
"""


class QuickBuilder:
    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        return True

    def on_free(self, listener: Callable[[], None]) -> None: ...

    async def recover(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        on_line("stdout", "one line")
        return BuildResult(replace(ARTIFACT, repository=job.repository))


class LogsOfOneThread(BuildLogs):
    """Lines that two threads write at the same moment would get the same number."""

    def append(self, build_id: str, profile: str, stream: str, text: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        super().append(build_id, profile, stream, text)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")
    made = replace(build(BuildState.QUEUED), spec=SPEC)
    await opened.transact(lambda tx: tx.builds.add(made, ""))
    yield opened
    opened.close()


async def test_an_outcome_that_cannot_be_stored_ends_the_queue_instead_of_hanging(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tx: Transaction, made: object, outcome: BuildTarget) -> None:
        raise OSError("disk full")

    queue = BuildQueue(store, QuickBuilder(), BuildLogs(tmp_path / "logs"), "registry:5000", 1)
    monkeypatch.setattr(queue, "_store_outcome", refuse)
    with pytest.raises(QueueBroken):
        await asyncio.wait_for(queue.run(), 10)


async def test_a_follower_reads_to_the_end_while_outcomes_are_stored(store: Store, tmp_path: Path) -> None:
    logs = LogsOfOneThread(tmp_path / "logs")

    async def ended() -> bool:
        found = await store.transact(lambda tx: tx.builds.get("b-1"))
        return found is not None and found.ended > 0

    async def follow() -> list[str]:
        return [line.text async for line in logs.read("b-1", 1, follow=True, ended=ended)]

    follower = asyncio.create_task(follow())
    queue = asyncio.create_task(BuildQueue(store, QuickBuilder(), logs, "registry:5000", 1).run())
    lines = await asyncio.wait_for(follower, 10)
    queue.cancel()
    await asyncio.gather(queue, return_exceptions=True)
    assert lines[0] == "one line"
    assert lines[-1].startswith("pushed registry:5000/alice/digits/digits@sha256:")
