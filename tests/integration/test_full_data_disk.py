"""The controller's own disk takes nothing any more: what was begun waits, is not lost, and goes on by itself."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.builds.logs import BuildLogs
from controller.builds.model import BuildState
from controller.devices.model import Device
from controller.errors import NotStored
from controller.local.broker import CONTROLLER, LocalBroker
from controller.mqtt import inbox
from controller.mqtt.inbox import DeviceMessages
from controller.mqtt.link import BrokerSettings
from controller.pki import CertificateAuthority
from controller.store import Store, Transaction, open_store
from edge_agent.runtime.identity import Identity
from longshore.topics import Topic
from longshore.v1 import mqtt_pb2
from tests.support.async_waiting import until
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.talking_device import TalkingDevice
from tests.support.waiting import eventually

pytestmark = pytest.mark.podman


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 16) as made:
        yield made


async def test_a_build_that_ends_on_a_full_disk_has_ended_once_there_is_room(disk: SmallDisk) -> None:
    builder = ScriptedBuilder()
    async with open_bench(disk.path, builder, reuse_hours=0, parallel=1) as bench:
        for number in (1, 2):
            await bench.add(number)
        async with bench.working():
            await bench.reaches("b-1", BuildState.BUILDING)
            disk.fill()
            builder.gate.set()
            await until(lambda: "its disk is full" in bench.store.condition)
            assert (await bench.found("b-1")).state is BuildState.BUILDING
            disk.free_again()
            for build_id in ("b-1", "b-2"):
                ended = await bench.reaches(build_id, BuildState.SUCCEEDED)
                assert ended.targets[0].attempts == 1
            await until(lambda: bench.store.condition == "")
    assert builder.begun == ["b-1", "b-2"]


async def test_a_build_that_ends_while_another_program_holds_the_database_has_ended_afterwards(
    disk: SmallDisk,
) -> None:
    builder = ScriptedBuilder()
    async with open_bench(disk.path, builder, reuse_hours=0) as bench:
        await bench.add(1)
        async with bench.working():
            await bench.reaches("b-1", BuildState.BUILDING)
            await bench.store.transact(impatient)
            with held(disk.path / "controller.db"):
                builder.gate.set()
                await until(lambda: "another program holds it" in bench.store.condition)
            ended = await bench.reaches("b-1", BuildState.SUCCEEDED)
    assert ended.targets[0].attempts == 1
    assert builder.begun == ["b-1"]


async def test_the_first_line_of_a_log_for_which_there_is_no_room_is_shown_as_missing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4, files=200) as disk:
        logs = BuildLogs(disk.path / "logs")
        logs.append("b-2", "", "system", "finished before")
        await logs.finish("b-2")
        disk.fill_with_files()
        logs.append("b-1", "", "system", "lost")
        # Not even where it would have to be unpacked first.
        logs.append("b-2", "", "system", "lost")
        disk.free_again()
        for build_id in ("b-1", "b-2"):
            logs.append(build_id, "", "system", "kept")
            logs.close(build_id)
        assert await lines(logs, "b-1") == [
            (1, "1 lines are left out here, 1 to 1: a log keeps its beginning and its end"),
            (2, "kept"),
        ]
        assert await lines(logs, "b-2") == [(1, "finished before"), (2, "kept")]


async def test_what_frees_space_is_stored_on_a_full_disk_and_reading_goes_on(disk: SmallDisk) -> None:
    async with open_bench(disk.path, ScriptedBuilder(), reuse_hours=0) as bench:
        await add(bench, 0, 40)
        disk.fill()
        with pytest.raises(NotStored, match="its disk is full; free space on the controller's machine"):
            await add(bench, 40, 80)
        for number in range(40):
            await bench.service().cancel(f"b-{number}")
            assert (await bench.found(f"b-{number}")).state is BuildState.CANCELLED
        with pytest.raises(NotStored):
            await add(bench, 80, 120)
    # And the next controller can open it.
    store = open_store(disk.path / "controller.db")
    with closing(store):
        assert store.transact_now(lambda tx: tx.keeping.building()) is False


async def test_a_device_that_says_too_much_meanwhile_is_heard_again(
    tmp_path: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MOST_WAITING", 3)
    ca = CertificateAuthority.create(tmp_path / "ca")
    (device_crt, device_key), (crt, key) = (ca.issue_client(name).write(tmp_path, name) for name in ("d", CONTROLLER))
    with closing(open_store(disk.path / "controller.db")) as store:
        await store.transact(lambda tx: tx.devices.add(Device("d", "edge", "x86-cpu", 1.0)))
        async with LocalBroker(tmp_path / "broker", ca) as broker:
            ca_file = tmp_path / "broker" / "ca.crt"
            messages = DeviceMessages(store, BrokerSettings(broker.host, broker.port, ca_file, crt, key))
            running = asyncio.create_task(messages.run())
            identity = Identity("d", "edge", "", broker.address, device_key, device_crt, ca_file, "")
            device = await asyncio.to_thread(TalkingDevice, identity)
            await until(lambda: messages.connected)
            await store.transact(impatient)
            with held(disk.path / "controller.db"):
                for session in range(1, 21):
                    await asyncio.to_thread(device.say, Topic.PRESENCE, mqtt_pb2.Presence(online=True, session=session))
                await until(lambda: messages._dropped)
            await asyncio.to_thread(eventually, lambda: session_of(store) == 20)
            device.leave()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def session_of(store: Store) -> int:
    device = store.transact_now(lambda tx: tx.devices.get("d"))
    assert device is not None
    return device.session


async def add(bench: Bench, begin: int, end: int) -> None:
    for number in range(begin, end):
        await bench.add(number)


def impatient(tx: Transaction) -> None:
    """SQLite says at once that another program holds the database."""
    tx.queue._connection.exec_driver_sql("PRAGMA busy_timeout = 0")


@contextmanager
def held(database: Path) -> Iterator[None]:
    """By another program."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


async def lines(logs: BuildLogs, build_id: str) -> list[tuple[int, str]]:
    async def ended() -> bool:
        return True

    return [(line.number, line.text) async for line in logs.read(build_id, 1, False, ended)]
