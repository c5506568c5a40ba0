"""Bundles on a disk that is full, or fills on the way: refused with the numbers, told, and gone on with once there is
room; what runs runs on."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import BackendError, Handle, Phase, Progress
from edge_agent.runtime.model import Artifact, ArtifactKind
from tests.contract.machine import await_lines, ignore
from tests.integration.virtualenv_fixtures import NUMBERS, LocalMachine, backend_over
from tests.support.async_waiting import until, until_holds
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.small_disk import MIB, SmallDisk, small_disk
from tests.support.stalling_proxy import stalling_proxy
from tests.support.virtualenv_machine import REPOSITORY
from tests.support.wheel_index import wheel

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-disk"),
    pytest.mark.asyncio(loop_scope="module"),
]
NOISE = 4 * MIB
WHEELS = dict([wheel("answers", "1.0", code="ANSWER = 42\n", noise=NOISE)])
MAIN = b"import answers\nprint('the answer is', answers.ANSWER)\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BundleShop]:
    async with open_bundle_shop(tmp_path_factory.mktemp("bundles"), WHEELS) as made:
        made.registry.pullable.add(REPOSITORY)
        yield made


async def bundle(shop: BundleShop, **files: bytes) -> Artifact:
    uploaded = [await shop.upload(name, content) for name, content in {"main.py": MAIN, **files}.items()]
    result = await shop.build(shop.job(f"b-{next(NUMBERS)}", {"packages": {"pypi": ["answers==1.0"]}}, uploaded))
    assert result.artifact is not None, result
    return Artifact(result.artifact.repository, result.artifact.digest, "linux/amd64", ArtifactKind.BUNDLE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(shop: BundleShop) -> Artifact:
    return await bundle(shop)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def machine(shop: BundleShop, artifact: Artifact, disk: SmallDisk) -> AsyncIterator[LocalMachine]:
    """Whose agent has all that is its own on the disk."""
    owner = f"test-{os.getpid()}-{next(NUMBERS)}"
    state = disk.path / "state"
    made = LocalMachine(backend_over(state, owner, shop), owner, state, artifact, shop)
    try:
        yield made
    finally:
        disk.free_again()
        await made.close()


async def prepare(machine: LocalMachine, progress: Callable[[Progress], None] = ignore) -> None:
    await machine.backend.prepare(machine.workload(), progress)


async def full(machine: LocalMachine, progress: Callable[[Progress], None] = ignore) -> BackendError:
    """What is said of the bundle, which is not there."""
    with pytest.raises(BackendError) as caught:
        await prepare(machine, progress)
    assert (caught.value.reason, caught.value.retryable) == ("DiskFull", True)
    with pytest.raises(BackendError, match="is not on this device"):
        await machine.backend.start(machine.workload())
    return caught.value


async def runs(machine: LocalMachine) -> bool:
    handle = await machine.launch(machine.workload(entrypoint=("python", "main.py")))
    ended = await machine.end_of(handle)
    return ended.exit_code == 0 and await machine.lines(handle) == ["the answer is 42"]


def unfinished(machine: LocalMachine) -> list[Path]:
    return [*machine.state.glob("*/.new-*"), *machine.state.glob("*/.old-*")]


async def full_once_it_has_come(machine: LocalMachine, disk: SmallDisk, leave: int) -> None:
    """The disk fills as soon as all of the bundle is there: that is told, nothing half made is left, and with the room
    that there was before the bundle runs."""

    def fill(progress: Progress) -> None:
        if progress.fetched_bytes == progress.total_bytes:
            disk.fill(leave)

    error = await full(machine, fill)
    assert "disk full (free " in error.message
    assert unfinished(machine) == []
    disk.free_again()
    assert await runs(machine)


async def test_bundle_that_cannot_fit_is_refused_with_the_numbers_before_it_comes(
    machine: LocalMachine, disk: SmallDisk
) -> None:
    disk.fill(leave=6 * MIB)
    error = await full(machine)
    assert "disk full (need 16 MiB, free " in error.message
    assert error.message.endswith(f"free space below {machine.state}")
    assert disk.free() > 5 * MIB, "nothing of it has come"
    disk.free_again()
    assert await runs(machine)


async def test_disk_that_fills_while_a_bundle_comes_is_told_and_what_came_is_not_fetched_again(
    machine: LocalMachine, disk: SmallDisk
) -> None:
    artifact = machine.artifact
    async with stalling_proxy(machine.shop.access.address, "127.0.0.1", NOISE // 2) as link:
        machine.artifact = replace(artifact, repository=f"{link.address}/{REPOSITORY}")

        async def fill() -> None:
            await until(lambda: link.stalled > 0, seconds=60)
            disk.fill()
            link.released.set()

        filling = asyncio.create_task(fill())
        error = await full(machine)
        await filling
    machine.artifact = artifact
    assert "disk full (free 0 bytes)" in error.message
    assert list((machine.state / "blobs/partial").iterdir()) != []
    disk.free_again()
    counts: list[int] = []
    await prepare(machine, lambda seen: counts.append(seen.fetched_bytes))
    assert counts[0] > NOISE // 4
    assert await runs(machine)


# With half of that an environment without packages has room, and the packages have not.
@pytest.mark.parametrize("leave", [0, NOISE // 2])
async def test_disk_that_fills_while_an_environment_is_made_is_told_and_nothing_half_made_is_left(
    machine: LocalMachine, disk: SmallDisk, leave: int
) -> None:
    await full_once_it_has_come(machine, disk, leave)


async def test_disk_that_fills_while_files_are_unpacked_is_told_and_nothing_half_made_is_left(
    machine: LocalMachine, disk: SmallDisk
) -> None:
    await prepare(machine)
    machine.artifact = await bundle(machine.shop, noise=random.Random(1).randbytes(3 * MIB))
    await full_once_it_has_come(machine, disk, MIB)


async def test_start_on_a_full_disk_is_told_and_leaves_nothing(machine: LocalMachine, disk: SmallDisk) -> None:
    await prepare(machine)
    disk.fill()
    with pytest.raises(BackendError) as caught:
        await machine.backend.start(machine.workload())
    assert (caught.value.reason, caught.value.retryable) == ("DiskFull", True)
    assert await machine.backend.list() == []
    disk.free_again()
    assert await runs(machine)
    assert len(list((machine.state / "instances").iterdir())) == 1


async def test_what_runs_on_a_full_disk_runs_on_and_the_log_says_what_it_lost(
    machine: LocalMachine, disk: SmallDisk
) -> None:
    script = "trap 'exit 6' TERM; n=0; while :; do n=$((n+1)); printf '%d %0500d\\n' $n 0; sleep 0.01; done"
    handle = await machine.launch(machine.workload(script))
    await await_lines(machine.backend, handle, 10)
    disk.fill()
    kept = len(await machine.lines(handle))
    await wrote(machine, handle, kept * 500 + 100_000)
    assert [seen.phase for seen in await machine.backend.list()] == [Phase.RUNNING]
    disk.free_again()

    async def told() -> bool:
        return any("lines could not be written" in line for line in await machine.lines(handle))

    await until_holds(told)


async def test_how_an_instance_ended_on_a_full_disk_is_known(machine: LocalMachine, disk: SmallDisk) -> None:
    handle = await machine.launch(
        machine.workload("trap 'exit 6' TERM; echo ready; while :; do sleep 1000 & wait; done")
    )
    await await_lines(machine.backend, handle, 1)
    disk.fill()
    await machine.backend.stop(handle, 10)
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (6, "")
    await machine.restart()
    assert list(await machine.backend.list()) == [seen]


async def wrote(machine: LocalMachine, handle: Handle, count: int) -> None:
    """Returns once the workload has written so many bytes."""
    path = Path(f"/proc/{machine.started(handle)['pid']}/io")

    async def enough() -> bool:
        fields = dict(line.split(": ") for line in path.read_text().splitlines())
        return int(fields["wchar"]) > count

    await until_holds(enough)
