"""A caller that leaves in the middle of a transaction takes nothing away from others."""

import asyncio
import threading
from pathlib import Path

import pytest

from controller.events.model import EventKind, NewEvent, Project
from controller.store import EventsAppended, Signal, Transaction, open_store
from tests.support.async_waiting import until

ALICE = Project("alice", "digits")


async def test_listeners_are_told_of_a_transaction_whose_caller_was_cancelled(tmp_path: Path) -> None:
    store = open_store(tmp_path / "controller.db")
    heard: list[Signal] = []
    store.subscribe(heard.append)
    begun, go_on = threading.Event(), threading.Event()

    def append(tx: Transaction) -> int:
        begun.set()
        go_on.wait(10)
        return tx.events.append(NewEvent(ALICE, EventKind.BUILD, "QUEUED"))

    caller = asyncio.create_task(store.transact(append))
    await asyncio.to_thread(begun.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await until(lambda: heard == [EventsAppended(ALICE)])
    assert await store.transact(lambda tx: tx.events.last_number(ALICE)) == 1
    store.close()
