"""Builds that end early on a builder that is busy with another one: nothing of them waits until it is idle. Also while
Podman runs no step, but copies files into the image, or stores what was copied."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds import processes
from controller.builds.model import BuildFailed, TargetJob
from tests.support.async_waiting import until
from tests.support.building import Workshop, mounts_below, open_workshop, processes_of
from tests.support.tiny_images import Registry, push_tiny

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("stopped")]

LARGE = bytes(200 * 2**20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("stopped")) as workshop:
        yield workshop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base(workshop: Workshop) -> str:
    server = workshop.registry
    made = await asyncio.to_thread(
        push_tiny, Registry(server.address, server.push_credentials(), server.ca_file), "alice/digits/tiny"
    )
    return f"{made.repository}@{made.digest}"


@asynccontextmanager
async def another_build(workshop: Workshop, base: str, name: str) -> AsyncIterator[None]:
    """In the middle of a step while the block lasts, and whole afterwards."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    steps = [f"echo {name}; nc 127.0.0.1 {port}; echo done > /done"]
    building = asyncio.create_task(workshop.build(workshop.job(name, {"base": base, "steps": steps})))
    try:
        await asyncio.wait_for(asked.wait(), 120)
        yield
    finally:
        go_on.set()
        server.close()
        artifact = await asyncio.wait_for(building, 120)
    assert artifact.digest.startswith("sha256:")


async def large_copy(workshop: Workshop, base: str, name: str) -> TargetJob:
    file = await workshop.upload("large.bin", LARGE)
    return workshop.job(name, {"base": base, "environment": {"NAME": name}}, [file])


class Victim:
    """A build that is not to come to its end, and its `podman build`."""

    def __init__(self, workshop: Workshop, job: TargetJob) -> None:
        self._workshop = workshop
        workshop.lines.clear()
        self._others = set(self._children())
        self.task = asyncio.create_task(workshop.build(job))

    async def copies(self) -> None:
        """Returns while a process of Podman copies the file, and now waits."""
        await until(lambda: "COPY" in self._said(), seconds=120)
        await until(lambda: self._stop(*self._copiers()), seconds=60)

    async def stores(self) -> None:
        """Returns while Podman itself reads what was copied, and now waits."""
        await until(lambda: "COPY" in self._said(), seconds=120)
        await until(lambda: self._half_stored() and self._stop(*self._builds()), seconds=60)

    def kill(self) -> None:
        """The end of its `podman build`, as by the kernel when memory runs out."""
        (podman,) = self._builds()
        os.kill(podman, signal.SIGKILL)

    def _said(self) -> str:
        return next((line for line in reversed(self._workshop.output()) if line.startswith("STEP ")), "")

    def _children(self) -> list[int]:
        return [pid for pid in processes_of(self._workshop.builder.podman.folder) if parent_of(pid) == os.getpid()]

    def _builds(self) -> list[int]:
        return [pid for pid in self._children() if pid not in self._others and b"build" in words_of(pid)]

    def _copiers(self) -> list[int]:
        below = (pid for build in self._builds() for pid in processes._descendants(build))
        return [pid for pid in below if words_of(pid)[:1] == [b"buildah-copier"]]

    def _half_stored(self) -> bool:
        unfinished = self._workshop.builder.podman.temporary.glob("build-*/scratch/buildah*/layer")
        return any(2**20 < path.stat().st_size < len(LARGE) / 2 for path in unfinished)

    def _stop(self, *pids: int) -> bool:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return bool(pids)


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def words_of(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


@pytest.mark.parametrize("moment", ["copies", "stores"])
async def test_a_cancel_while_no_step_runs_leaves_nothing_beside_a_build_that_goes_on(
    workshop: Workshop, base: str, moment: str
) -> None:
    async with another_build(workshop, base, f"other-{moment}"):
        before = there(workshop)
        victim = Victim(workshop, await large_copy(workshop, base, moment))
        await (victim.copies() if moment == "copies" else victim.stores())
        victim.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(victim.task, 120)
        assert there(workshop) == before
    assert workshop.leftovers() == []


async def test_a_podman_that_is_killed_leaves_nothing_beside_a_build_that_goes_on(
    workshop: Workshop, base: str
) -> None:
    async with another_build(workshop, base, "other-killed"):
        before = there(workshop)
        victim = Victim(workshop, workshop.job("killed", {"base": base, "steps": ["echo it runs; sleep 1000"]}))
        await until(lambda: "it runs" in workshop.output(), seconds=120)
        victim.kill()
        with pytest.raises(BuildFailed) as caught:
            await asyncio.wait_for(victim.task, 120)
        assert caught.value.reason == "BuilderKilled"
        assert there(workshop) == before
    assert workshop.leftovers() == []


def there(workshop: Workshop) -> tuple[set[str], set[Path], set[str]]:
    """Containers, folders of builds, and mounts."""
    podman = workshop.builder.podman
    return set(workshop.containers()), set(podman.temporary.iterdir()), set(mounts_below(podman.folder))
