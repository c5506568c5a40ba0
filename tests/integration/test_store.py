"""The store on a real SQLite file."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from controller.builds.model import Build, BuildState, BuildTarget
from controller.events.model import EventKind, NewEvent, Project, Wanted
from controller.store import EventsAppended, Signal, Store, Transaction, open_store
from controller.store.rows import Page
from controller.store.schema import metadata
from controller.store.store import migrate

ALICE = Project("alice", "digits")
BOB = Project("bob", "digits")


def event(project: Project, state: str = "QUEUED", deployment_id: str = "") -> NewEvent:
    return NewEvent(project, EventKind.BUILD, state, deployment_id=deployment_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "controller.db")


def test_migrations_make_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.connect() as connection:
        migrate(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert set(metadata.tables) <= set(inspect(connection).get_table_names())
    engine.dispose()


async def test_events_are_numbered_from_one_in_each_project(store: Store) -> None:
    def append(tx: Transaction) -> list[int]:
        return [tx.events.append(event(project)) for project in (ALICE, BOB, ALICE, ALICE)]

    assert await store.transact(append) == [1, 1, 2, 3]


async def test_a_transaction_that_fails_leaves_nothing_and_tells_nobody(store: Store) -> None:
    heard: list[Signal] = []
    store.subscribe(heard.append)

    def fail(tx: Transaction) -> None:
        tx.events.append(event(ALICE))
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        await store.transact(fail)
    assert heard == []
    assert await store.transact(lambda tx: tx.events.append(event(ALICE))) == 1
    assert heard == [EventsAppended(ALICE)]


async def test_a_filtered_page_tells_how_far_it_has_searched(store: Store) -> None:
    def append(tx: Transaction) -> None:
        for deployment_id in ("a", "b", "a", "b"):
            tx.events.append(event(ALICE, deployment_id=deployment_id))

    await store.transact(append)
    events, searched = await store.transact(lambda tx: tx.events.after(ALICE, 0, Wanted(deployment_id="a")))
    assert [found.number for found in events] == [1, 3]
    assert searched == 4


def build(number: int) -> Build:
    targets = (BuildTarget("x86-cpu", "x86-cpu", "linux/amd64"), BuildTarget("arm64-cpu", "arm64-cpu", "linux/arm64"))
    return Build(f"b-{number}", "alice", "digits", "digits", b"version: 1", (), targets, created=1000.0 + number)


async def test_the_queue_gives_only_what_is_due(store: Store) -> None:
    def queue(tx: Transaction) -> list[tuple[str, str]]:
        for number in (2, 1):
            tx.builds.add(build(number), "")
        postponed = BuildTarget("x86-cpu", "x86-cpu", "linux/amd64", next_try=time.time() + 60)
        tx.builds.change_target("b-1", postponed)
        return [waiting.name for waiting in tx.queue.due(time.time(), 10)]

    due = await store.transact(queue)
    assert sorted(due) == [("b-1", "arm64-cpu"), ("b-2", "arm64-cpu"), ("b-2", "x86-cpu")]


async def test_identical_targets_hide_no_other_one_behind_them(store: Store) -> None:
    def queue(tx: Transaction) -> tuple[list[str], list[str]]:
        for number in range(1, 30):
            alike = BuildTarget("x86-cpu", "x86-cpu", "linux/amd64", cache_key="k" if 1 < number < 28 else "")
            tx.builds.add(replace(build(number), targets=(alike,)), "")
        few, all_of_them = tx.queue.due(time.time(), 3), tx.queue.due(time.time(), 3, alike=True)
        return [each.build_id for each in few], [each.build_id for each in all_of_them]

    assert await store.transact(queue) == (["b-1", "b-2", "b-28"], ["b-1", "b-2", "b-3"])


async def test_a_begun_target_is_found_after_a_restart(store: Store, tmp_path: Path) -> None:
    def begin(tx: Transaction) -> None:
        tx.builds.add(build(1), "request-1")
        tx.builds.change_target("b-1", BuildTarget("x86-cpu", "x86-cpu", "linux/amd64", state=BuildState.BUILDING))

    await store.transact(begin)
    store.close()
    reopened = open_store(tmp_path / "controller.db")
    assert await reopened.transact(lambda tx: tx.queue.unfinished()) == [("b-1", "x86-cpu")]
    found = await reopened.transact(lambda tx: tx.builds.by_request(ALICE, "request-1"))
    assert found is not None
    assert found.state is BuildState.BUILDING


async def test_pages_are_newest_first_without_gap_or_repeat(store: Store) -> None:
    def fill(tx: Transaction) -> list[str]:
        for number in range(5):
            tx.builds.add(build(number), "")
        seen, token = [], ""
        while True:
            shown, token = tx.builds.page(ALICE, "", Page(2, token))
            seen += [found.id for found in shown]
            if not token:
                return seen

    assert await store.transact(fill) == ["b-4", "b-3", "b-2", "b-1", "b-0"]
