"""When the agent asks for its desired state, and what it does with the answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edge_agent.runtime import sync as sync_module
from edge_agent.runtime.controller_link import ControllerError, ControllerRefused, ControllerUnavailable
from edge_agent.runtime.database import StorageError
from edge_agent.runtime.sync import DesiredSync, SyncTimes
from longshore.v1 import mqtt_pb2
from longshore.v1.agent_pb2 import DesiredState
from tests.support.async_waiting import until

LONG = SyncTimes(poll=1000, resync=1000)


class Controller:
    def __init__(self, generation: int = 0, device_id: str = "me") -> None:
        self.generation = generation
        self.device_id = device_id
        self.error: ControllerError | None = None
        self.asked: list[int] = []

    async def get_desired(self, held_generation: int) -> DesiredState | None:
        self.asked.append(held_generation)
        if self.error:
            raise self.error
        if self.generation <= held_generation:
            return None
        return DesiredState(device_id=self.device_id, generation=self.generation)


class Store:
    def __init__(self) -> None:
        self.body: bytes | None = None
        self.full = False

    def desired(self) -> bytes | None:
        return self.body

    def store_desired(self, desired: bytes) -> bool:
        if self.full:
            raise StorageError("disk full")
        self.body = desired
        return True


class Setup:
    """A sync and all that is around it. `applied` has the generations, and what was stored by then."""

    def __init__(self, controller: Controller, times: SyncTimes = LONG) -> None:
        self.controller = controller
        self.store = Store()
        self.applied: list[int] = []
        self.reached = 0
        self.sync = DesiredSync("me", controller, self.store, self._apply, times, self._reach)

    def _reach(self) -> None:
        self.reached += 1

    def _apply(self, desired: DesiredState) -> None:
        assert self.store.body is not None, "applied before it was stored"
        assert DesiredState.FromString(self.store.body).generation == desired.generation
        self.applied.append(desired.generation)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.sync.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def notice(generation: int) -> mqtt_pb2.DesiredNotice:
    return mqtt_pb2.DesiredNotice(generation=generation)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_module, "FIRST_POLL", (0.0, 0.0))
    monkeypatch.setattr(sync_module, "RETRY_FIRST", 0.01)


async def test_it_asks_at_the_start_and_applies_what_it_has_stored() -> None:
    setup = Setup(Controller(generation=3))
    async with setup.running():
        await until(lambda: setup.applied == [3])
    assert setup.sync.held_generation == 3


async def test_what_was_stored_is_applied_without_asking_and_then_only_newer_is_asked_for() -> None:
    setup = Setup(Controller(generation=3))
    setup.store.body = DesiredState(device_id="me", generation=3).SerializeToString()
    setup.sync.apply_stored()
    assert setup.applied == [3]
    assert setup.controller.asked == []
    async with setup.running():
        await until(lambda: setup.controller.asked == [3])
    assert setup.applied == [3]


@pytest.mark.parametrize("body", [b"\xff\xff", DesiredState(device_id="another", generation=3).SerializeToString()])
async def test_what_is_not_this_devices_desired_state_is_not_applied(body: bytes) -> None:
    setup = Setup(Controller())
    setup.store.body = body
    setup.sync.apply_stored()
    assert setup.applied == []
    assert setup.sync.held_generation == 0


async def test_a_notice_of_a_newer_generation_makes_it_ask_and_an_old_one_does_not() -> None:
    setup = Setup(Controller(generation=1))
    async with setup.running():
        await until(lambda: setup.applied == [1])
        setup.sync.noticed(notice(1))
        await settled()
        assert setup.controller.asked == [0]
        setup.controller.generation = 2
        setup.sync.noticed(notice(2))
        await until(lambda: setup.applied == [1, 2])


async def test_a_new_connection_to_the_broker_makes_it_ask() -> None:
    setup = Setup(Controller(generation=1))
    async with setup.running():
        await until(lambda: setup.applied == [1])
        setup.sync.broker_connected()
        await until(lambda: setup.controller.asked == [0, 1])


async def test_without_a_broker_it_polls_and_with_one_it_waits_for_the_bell() -> None:
    setup = Setup(Controller(), SyncTimes(poll=0.02, resync=1000))
    async with setup.running():
        await until(lambda: len(setup.controller.asked) > 3)
        setup.sync.broker_connected()
        await settled()
        asked = len(setup.controller.asked)
        await asyncio.sleep(0.1)
        assert len(setup.controller.asked) <= asked + 1
        setup.sync.broker_lost()
        await until(lambda: len(setup.controller.asked) > asked + 3)


async def test_with_a_broker_it_still_looks_now_and_then() -> None:
    setup = Setup(Controller(), SyncTimes(poll=1000, resync=0.02))
    async with setup.running():
        setup.sync.broker_connected()
        await until(lambda: len(setup.controller.asked) > 3)


@pytest.mark.parametrize("error", [ControllerUnavailable("away"), ControllerRefused("no", "PERMISSION_DENIED")])
async def test_a_failed_call_is_tried_again_until_it_works(error: ControllerError) -> None:
    setup = Setup(Controller(generation=5))
    setup.controller.error = error
    async with setup.running():
        setup.sync.broker_connected()
        setup.sync.noticed(notice(5))
        await until(lambda: len(setup.controller.asked) >= 3)
        assert setup.reached == 0
        setup.controller.error = None
        await until(lambda: setup.applied == [5])
        assert setup.reached >= 1


async def test_an_answer_that_is_older_than_the_notice_is_asked_for_again() -> None:
    setup = Setup(Controller(generation=1))
    async with setup.running():
        setup.sync.broker_connected()
        setup.sync.noticed(notice(2))
        await until(lambda: len(setup.controller.asked) >= 3)
        setup.controller.generation = 2
        await until(lambda: setup.applied == [1, 2])


async def test_what_cannot_be_stored_is_not_applied_and_asked_for_again() -> None:
    setup = Setup(Controller(generation=1))
    setup.store.full = True
    async with setup.running():
        await until(lambda: len(setup.controller.asked) >= 3)
        assert setup.applied == []
        setup.store.full = False
        await until(lambda: setup.applied == [1])


async def test_the_desired_state_of_another_device_is_never_taken() -> None:
    setup = Setup(Controller(generation=1, device_id="another"))
    async with setup.running():
        await until(lambda: setup.controller.asked)
        await settled()
    assert setup.store.body is None
    assert setup.applied == []


async def test_a_bell_of_an_older_generation_makes_it_ask_since_the_controller_may_have_been_restored() -> None:
    setup = Setup(Controller(generation=9))
    async with setup.running():
        await until(lambda: setup.applied == [9])
        setup.controller.generation = 10
        setup.sync.noticed(notice(5))
        await until(lambda: setup.applied == [9, 10])
