"""When the facts of a machine are read again, and how busy its accelerators are."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.runtime.disk import Space
from edge_agent.runtime.facts import telling
from edge_agent.runtime.facts.found import Accelerator
from edge_agent.runtime.facts.keeper import FactsKeeper
from edge_agent.runtime.facts.nvml import Gpu
from edge_agent.runtime.facts.use import AcceleratorUses, Use
from tests.support.async_waiting import until
from tests.support.recorded_machines import JETSON_ORIN, ODROID_M1, PC_WITH_TWO_GPUS, RASPBERRY_PI_5

GIB = 2**30
GPUS = [
    Gpu("NVIDIA GeForce RTX 4090", 1, 24 * GIB, 3 * GIB, "550.54.15", 87),
    Gpu("NVIDIA RTX A2000", 0, 12 * GIB, 0, "550.54.15", None),
]


class Driver:
    """Of the GPUs; counts how often it is asked."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self.gpus = gpus
        self.asked = 0

    def read(self) -> Sequence[Gpu]:
        self.asked += 1
        return self.gpus


@asynccontextmanager
async def keeping(root: Path, driver: Driver, **options: Any) -> AsyncIterator[tuple[FactsKeeper, list[int]]]:
    """The keeper, and how many accelerators there were at each change that it told."""
    told: list[int] = []
    keeper = FactsKeeper(
        "0.2", lambda: [root], lambda: told.append(len(keeper.facts.accelerators)), root=root,
        read_gpus=driver.read, **options,
    )  # fmt: skip
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper, told
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_files_tell_is_there_from_the_beginning_and_the_driver_completes_it(tmp_path: Path) -> None:
    driver = Driver(GPUS)
    async with keeping(PC_WITH_TWO_GPUS.plant(tmp_path), driver) as (keeper, told):
        assert [one.memory_bytes for one in keeper.facts.accelerators] == [0, 0]
        await until(lambda: told == [2])
        assert [one.memory_bytes for one in keeper.facts.accelerators] == [24 * GIB, 12 * GIB]


async def test_the_driver_is_not_asked_again_for_what_it_has_told(tmp_path: Path) -> None:
    driver = Driver(GPUS)
    async with keeping(PC_WITH_TWO_GPUS.plant(tmp_path), driver, period=0.005) as (keeper, told):
        await until(lambda: told == [2])
        (tmp_path / "dev/hailo0").touch()
        await until(lambda: told == [2, 3])
        assert driver.asked == 1
        assert [disk.path for disk in keeper.facts.disks] != []


async def test_a_driver_that_hangs_holds_up_nothing_and_is_left_alone(tmp_path: Path) -> None:
    release = threading.Event()
    driver = Driver(())

    def hang() -> Sequence[Gpu]:
        driver.asked += 1
        release.wait(60)
        return ()

    driver.read = hang  # type: ignore[method-assign]
    try:
        async with keeping(PC_WITH_TWO_GPUS.plant(tmp_path), driver, period=0.005, patience=0.02) as (keeper, told):
            await until(lambda: driver.asked == 1)
            (tmp_path / "dev/hailo0").touch()
            await until(lambda: told == [3])
            assert await keeper.ask_gpus() == ()
            assert driver.asked == 1
    finally:
        release.set()


async def test_facts_are_read_again_at_once_when_asked_for_and_told_only_when_they_changed(tmp_path: Path) -> None:
    async with keeping(RASPBERRY_PI_5.plant(tmp_path), Driver(())) as (keeper, told):
        for _ in range(3):
            keeper.look_soon()
            await asyncio.sleep(0)
        (tmp_path / "dev/apex_0").touch()
        keeper.look_soon()
        await until(lambda: told == [2])


async def test_free_space_that_changes_all_the_time_is_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, free = RASPBERRY_PI_5.plant(tmp_path), [30 * GIB]
    monkeypatch.setattr(telling, "spaces", lambda _: [Space(Path("/data"), 64 * GIB, free[0])])
    async with keeping(root, Driver(()), period=0.005, free_period=3600.0) as (keeper, told):
        free[0] = 20 * GIB
        await until(lambda: keeper.facts.disks[0].free_bytes == 20 * GIB)
        free[0] = 10 * GIB
        (tmp_path / "dev/apex_0").touch()
        await until(lambda: told == [1, 2])
        assert keeper.facts.disks[0].free_bytes == 20 * GIB
        # Another disk is no news of free space.
        monkeypatch.setattr(telling, "spaces", lambda _: [Space(Path("/other"), 64 * GIB, GIB)])
        await until(lambda: keeper.facts.disks[0].path == "/other")
    async with keeping(root, Driver(()), period=0.005, free_period=0.0) as (keeper, _):
        free[0] = 10 * GIB
        monkeypatch.setattr(telling, "spaces", lambda _: [Space(Path("/data"), 64 * GIB, free[0])])
        await until(lambda: keeper.facts.disks[0].free_bytes == 10 * GIB)


@pytest.mark.parametrize(
    ("device", "name", "use"),
    [
        ("nvidia.com/gpu=0", "NVIDIA GeForce RTX 4090", Use(87, 3 * 2**20)),
        ("nvidia.com/gpu=all", "NVIDIA GeForce RTX 4090", Use(87, 3 * 2**20)),
        ("/dev/nvidia1", "NVIDIA GeForce RTX 4090", Use(87, 3 * 2**20)),
        # Its driver does not count how busy it is.
        ("nvidia.com/gpu=1", "", None),
        ("acme.com/tpu=all", "", None),
    ],
)
async def test_gpus_that_a_workload_was_given_are_measured(
    tmp_path: Path, device: str, name: str, use: Use | None
) -> None:
    driver = Driver(GPUS)
    async with keeping(PC_WITH_TWO_GPUS.plant(tmp_path), driver) as (keeper, told):
        await until(lambda: bool(told))
        found = await AcceleratorUses(keeper).given_by({device})
    assert {one.name: use for one, use in found.items()} == ({name: use} if use is not None else {})


async def test_load_files_of_boards_are_read_without_any_driver_library(tmp_path: Path) -> None:
    driver = Driver(())
    jetson = FactsKeeper("0.2", list, lambda: None, root=JETSON_ORIN.plant(tmp_path / "a"), read_gpus=driver.read)
    odroid = FactsKeeper("0.2", list, lambda: None, root=ODROID_M1.plant(tmp_path / "b"), read_gpus=driver.read)

    async def busy(keeper: FactsKeeper, *devices: str) -> dict[str, Use]:
        found: dict[Accelerator, Use] = dict(await AcceleratorUses(keeper).given_by(devices))
        return {one.kind: use for one, use in found.items()}

    assert await busy(jetson, "nvidia.com/gpu=all") == {"nvidia.com/gpu": Use(33)}
    assert await busy(odroid, "rockchip.com/npu=all", "/dev/mali0") == {
        "rockchip.com/npu": Use(21),
        "arm.com/mali": Use(45),
    }
    assert await busy(odroid) == {}
    assert driver.asked == 0
