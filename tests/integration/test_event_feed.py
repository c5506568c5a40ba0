"""Following the event log while others write to it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update

from controller.errors import OutOfRange
from controller.events.feed import EventFeed, Filter, Heartbeat
from controller.events.model import Event, EventKind, NewEvent, Project
from controller.store import Store, Transaction, open_store, schema

ALICE, BOB = Project("alice", "digits"), Project("bob", "digits")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "controller.db")
    yield opened
    opened.close()


def append(store: Store, project: Project, deployment_id: str = "", count: int = 1) -> "asyncio.Task[None]":
    def work(tx: Transaction) -> None:
        for _ in range(count):
            tx.events.append(NewEvent(project, EventKind.INSTANCE, "RUNNING", deployment_id=deployment_id))

    async def run() -> None:
        await store.transact(work)

    return asyncio.create_task(run())


async def take(feed: EventFeed, count: int, after: int = 0, only: Filter | None = None) -> list[int]:
    """The numbers of the next events."""
    numbers: list[int] = []
    async for event in feed.watch(ALICE, after, follow=True, only=only or Filter()):
        if isinstance(event, Event):
            numbers.append(event.number)
        if len(numbers) == count:
            break
    return numbers


async def test_every_watcher_sees_every_event_once_and_in_order(store: Store) -> None:
    feed, chance = EventFeed(store), random.Random(1)
    watchers = [asyncio.create_task(take(feed, 300 - start, after=start)) for start in (0, 1, 150, 299)]
    writers = []
    for _ in range(300):
        writers.append(append(store, ALICE))
        writers.append(append(store, BOB, count=chance.randrange(3)))
        if chance.random() < 0.2:
            await asyncio.gather(*writers)
    await asyncio.gather(*writers)
    seen = await asyncio.wait_for(asyncio.gather(*watchers), 30)
    for start, numbers in zip((0, 1, 150, 299), seen, strict=True):
        assert numbers == list(range(start + 1, 301))


async def test_a_filtered_watcher_passes_over_long_stretches_of_others(store: Store) -> None:
    feed = EventFeed(store)
    await append(store, ALICE, "wanted")
    await append(store, ALICE, "other", count=1500)
    await append(store, ALICE, "wanted")
    watcher = asyncio.create_task(take(feed, 3, only=Filter(deployment_id="wanted")))
    await append(store, ALICE, "wanted")
    assert await asyncio.wait_for(watcher, 10) == [1, 1502, 1503]


async def test_without_follow_it_ends_with_what_is_stored(store: Store) -> None:
    await append(store, ALICE, count=1200)
    watched = EventFeed(store).watch(ALICE, 700, follow=False)
    numbers = [event.number async for event in watched if isinstance(event, Event)]
    assert numbers == list(range(701, 1201))


async def test_while_nothing_comes_it_says_that_it_lives(store: Store) -> None:
    async for event in EventFeed(store).watch(ALICE, 0, follow=True, heartbeat=0.01):
        assert event == Heartbeat(0)
        break


async def test_a_watcher_for_whom_nothing_comes_is_told_how_far_the_log_was_searched_while_others_are_busy(
    store: Store,
) -> None:
    busy = True

    async def write() -> None:
        while busy:
            await append(store, ALICE, "other")

    writer = asyncio.create_task(write())
    async for event in EventFeed(store).watch(ALICE, 0, True, Filter(deployment_id="wanted"), heartbeat=0.05):
        assert isinstance(event, Heartbeat)
        if event.searched:
            break
    busy = False
    await writer


async def test_events_are_filtered_by_device_kind_and_state(store: Store) -> None:
    def work(tx: Transaction) -> None:
        for device in ("dev-1", "dev-2"):
            for state in ("RUNNING", "FAILED"):
                tx.events.append(NewEvent(ALICE, EventKind.INSTANCE, state, device_id=device, last_lines=("boom",)))
        tx.events.append(NewEvent(ALICE, EventKind.BUILD, "FAILED"))

    await store.transact(work)
    feed = EventFeed(store)
    assert await take(feed, 2, only=Filter(device_id="dev-2")) == [3, 4]
    assert await take(feed, 3, only=Filter(states=("FAILED",))) == [2, 4, 5]
    assert await take(feed, 1, only=Filter(kinds=(EventKind.BUILD,))) == [5]
    assert await take(feed, 1, only=Filter(device_id="dev-1", states=("FAILED",))) == [2]
    (event,) = [one async for one in feed.watch(ALICE, 3, False, Filter(device_id="dev-2")) if isinstance(one, Event)]
    assert event.what.last_lines == ("boom",)


async def test_a_watcher_is_told_what_was_trimmed(store: Store) -> None:
    await append(store, ALICE, count=10)
    assert await store.transact(lambda tx: tx.events.trim(ALICE, time.time() + 60, 6)) == 4
    feed = EventFeed(store)
    with pytest.raises(OutOfRange, match="before number 5") as refused:
        await take(feed, 1, after=2)
    assert refused.value.metadata == {"oldest": "5"}
    assert await take(feed, 6, after=4) == [5, 6, 7, 8, 9, 10]


async def test_a_watcher_that_falls_behind_what_is_trimmed_is_told_while_it_watches(store: Store) -> None:
    await append(store, ALICE, count=600)
    watched = EventFeed(store).watch(ALICE, 0, follow=True)
    async for event in watched:
        if isinstance(event, Event) and event.number == 500:
            # A page has been read; the next one begins in what goes now.
            await store.transact(lambda tx: tx.events.trim(ALICE, time.time() + 60, 10))
            break
    with pytest.raises(OutOfRange, match="before number 591"):
        await anext(watched)


async def test_a_log_is_trimmed_from_its_beginning_and_goes_on_counting(store: Store) -> None:
    await append(store, ALICE, count=10)
    await append(store, BOB, count=3)
    assert await store.transact(lambda tx: tx.events.trim(ALICE, 1.0, 1)) == 0, "nothing is so old"
    young = update(schema.events).where(schema.events.c.number.in_((4, 9))).values(time=2e9)
    await store.transact(lambda tx: tx.events._connection.execute(young))
    assert await store.transact(lambda tx: tx.events.trim(ALICE, 1.9e9, 1)) == 3, "up to the first young one"
    assert await store.transact(lambda tx: tx.events.trim(ALICE, 3e9, 0)) == 6, "the last stays"
    await append(store, ALICE)
    assert await take(EventFeed(store), 2, after=9) == [10, 11]
    assert await store.transact(lambda tx: (tx.events.oldest_number(BOB), tx.events.projects())) == (1, [ALICE, BOB])
