"""Housekeeping where a disk has no room, and where builds never pause: real registry, real rows, real disks."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.builds.registry_session import RegistryUnreachable
from controller.deployments.model import Wish, WorkloadRow
from controller.housekeeping import keeper, old_builds
from controller.housekeeping.journal import Journal
from controller.housekeeping.plan import Artifact
from controller.housekeeping.space import Space
from tests.support.async_waiting import until
from tests.support.house import House, open_house
from tests.support.rows import build
from tests.support.small_disk import MIB, SmallDisk, small_disk

pytestmark = pytest.mark.podman
HOUR = 3600.0


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[tuple[House, SmallDisk]]:
    """A house on a small disk of which 8 MiB have to be free."""
    with small_disk(tmp_path / "disk", 64) as disk:
        async with open_house(disk.path / "house") as house:
            house.space = Space({"the data": house.folder, "the registry": house.folder / "registry"}, 8 * MIB)
            yield house, disk


async def test_young_builds_that_nothing_needs_go_until_the_registry_has_room(room: tuple[House, SmallDisk]) -> None:
    """Also while builds of the same project wait for it, and never what is deployed or wished of a device."""
    house, disk = room
    images = [await house.push(str(number), size=MIB) for number in range(6)]
    made = [
        await house.build(number, image, ended=time.time() - (9 - number) * HOUR) for number, image in enumerate(images)
    ]
    await house.deploy(made[1])
    workload = WorkloadRow("dep-1", "dev-1", 1, Wish.RUN, images[3], b"")
    await house.store.transact(lambda tx: tx.workloads.put(workload))
    waiting = replace(build(BuildState.QUEUED), id="b-9")
    await house.store.transact(lambda tx: tx.builds.add(waiting, ""))
    await house.keeper().tidy(grace=0)
    assert len(await house.known()) == 7

    disk.fill(leave=8 * MIB - 3 * MIB // 2)
    await house.keeper().tidy(grace=0)
    assert house.space.condition() == ""
    assert await house.known() == {"b-1", "b-3", "b-4", "b-5", "b-9"}
    assert [await house.has(image) for image in images] == [False, True, False, True, True, True]
    assert set(house.logs.sizes()) == {"b-1", "b-3", "b-4", "b-5"}


async def test_the_last_ones_of_a_name_stay_however_little_room_there_is(room: tuple[House, SmallDisk]) -> None:
    house, disk = room
    house.policy = replace(house.policy, builds_keep_last=2)
    images = [await house.push(str(number), size=MIB) for number in range(3)]
    for number, image in enumerate(images):
        await house.build(number, image, ended=time.time() - (9 - number) * HOUR)
    disk.fill(leave=MIB)
    await house.keeper().tidy(grace=0)
    assert await house.known() == {"b-1", "b-2"}
    assert [await house.has(image) for image in images] == [False, True, True]
    assert house.space.condition() != ""


async def test_no_build_is_forgotten_for_a_registry_that_frees_nothing(
    room: tuple[House, SmallDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    house, disk = room
    for number in range(3):
        await house.build(number, await house.push(str(number), size=MIB), ended=time.time() - HOUR)

    async def unreachable(*_: object) -> None:
        raise RegistryUnreachable("registry", "away")

    monkeypatch.setattr(old_builds, "remove_artifact", unreachable)
    gone = Artifact("alice", "digits", f"{house.registry.address}/alice/digits/gone", "sha256:" + "0" * 64)
    Journal(house.folder / "journal.json").add([gone])
    disk.fill(leave=MIB)
    await house.keeper().tidy(grace=0)
    assert await house.known() == {"b-0", "b-1", "b-2"}


async def test_an_index_that_is_being_joined_stays_while_room_is_made(room: tuple[House, SmallDisk]) -> None:
    house, disk = room
    index = await house.push("index")
    Journal(house.folder / "journal.json").note("alice", "digits", index.repository, index.digest)
    joining = replace(build(BuildState.SUCCEEDED), id="b-1", join_next=time.time())
    await house.store.transact(lambda tx: tx.builds.add(joining, ""))
    await house.store.transact(lambda tx: tx.builds.change(joining))
    disk.fill(leave=MIB)
    await house.keeper().tidy(grace=0)
    assert await house.has(index)


async def test_uploads_that_no_build_needs_go_as_soon_as_the_disk_has_no_room(
    room: tuple[House, SmallDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what breaks in a round hinders nothing else in it; of what was just uploaded nobody knows for what it is."""
    house, disk = room
    house.policy = replace(house.policy, uploads_days=7)
    needed, unneeded = await house.upload(bytes(MIB)), await house.upload(bytes(MIB + 1))
    await house.build(1, await house.push("deployed"), files=[needed])
    await house.deploy(await house.build(2, await house.push("other"), ended=time.time(), files=[needed]))
    (house.folder / "logs" / "b-2").mkdir()
    (house.folder / "logs" / "b-2" / "no-log").mkdir()
    disk.fill(leave=8 * MIB - MIB // 2)
    await house.keeper().tidy(grace=0)
    assert house.uploads.stat(unneeded.digest).complete
    monkeypatch.setattr(keeper, "FRESH", 0.0)
    await house.keeper().tidy(grace=0)
    assert (house.uploads.stat(needed.digest).complete, house.uploads.stat(unneeded.digest).complete) == (True, False)


async def test_a_disk_that_becomes_full_between_two_rounds_brings_the_next_one(
    room: tuple[House, SmallDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    house, disk = room
    for name in ("FIRST", "LOOK", "FRESH"):
        monkeypatch.setattr(keeper, name, 0.01)
    house.policy = replace(house.policy, uploads_days=7)
    housekeeper = house.keeper()
    rounds, tidy = list[float](), housekeeper.tidy

    async def counted() -> None:
        await tidy(0)
        rounds.append(time.time())

    monkeypatch.setattr(housekeeper, "tidy", counted)
    unneeded = await house.upload(bytes(2 * MIB))
    running = asyncio.create_task(housekeeper.run())
    await until(lambda: rounds)
    assert house.uploads.stat(unneeded.digest).complete
    disk.fill(leave=7 * MIB)
    await until(lambda: not house.uploads.stat(unneeded.digest).complete)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
