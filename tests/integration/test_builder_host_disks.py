"""The disks of builder hosts: what this controller brought there goes, by age, by size, and when there is no room."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds import remote
from controller.builds.hosts import BuilderHost, BuilderPool
from controller.builds.model import ArtifactKind, BuildFailed, BuildResult, OnLine, OnState, TargetJob
from controller.builds.remote import RemotePlace
from controller.builds.remote_keeping import DAY, HostPolicy
from controller.builds.remote_uses import HostUses, Kind
from controller.builds.targets import load_profiles
from controller.housekeeping.sizes import size_below
from controller.local.process import free_port
from tests.support.async_waiting import until
from tests.support.builder_hosts import HostUnderTest, running_host
from tests.support.building import SMALL_BASE, Workshop, open_workshop
from tests.support.device_network import DeviceNetwork
from tests.support.small_disk import MIB, SmallDisk, small_image_disk

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("host-disks")]
WAITING = "the step is running"
CACHE = "longshore-uv-0123456789abcdef"
NEVER = HostPolicy(keep_seconds=100 * DAY)


class NoBundles:
    """No bundle is asked for here."""

    async def recover(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        raise NotImplementedError


@dataclass
class Yard:
    """A workshop and a builder host with a small disk for its images."""

    workshop: Workshop
    host: HostUnderTest
    disk: SmallDisk

    @property
    def journal(self) -> Path:
        return self.workshop.folder / "journal"

    async def pool(self, policy: HostPolicy) -> BuilderPool:
        tunnel, builder = self.host.ssh(), self.workshop.builder
        place = RemotePlace(tunnel.url, tunnel, (), builder.podman, self.journal, builder.operators_base, policy)
        pool = BuilderPool(builder, [BuilderHost("far", place, 2)], load_profiles(), NoBundles())
        await pool.recover()
        await pool.probe(pool.hosts[0])
        return pool

    async def build(self, pool: BuilderPool, build_id: str, *steps: str) -> BuildResult:
        job = self.workshop.job(build_id, {"base": SMALL_BASE, "steps": list(steps), "push": False})
        return await pool.build(job, lambda *line: self.workshop.lines.append(line), self.workshop.states.append)

    async def tags(self) -> set[str]:
        """Of all images there."""
        return set((await self.host.podman("images", "--format", "{{.Tag}}")).split())

    def age(self, days: float, *names: str) -> None:
        """What is called so was used last so many days ago."""
        for use in HostUses(self.journal).all():
            if not names or any(name in use.name for name in names):
                HostUses(self.journal).put_off(use, time.time() - days * DAY)

    def keep_cache(self) -> Path:
        """A package cache there, as a build leaves it."""
        HostUses(self.journal).note(Kind.CACHE, CACHE)
        folder = self.host.device.folder / "copies" / "buildah-cache" / CACHE
        folder.mkdir(parents=True)
        (folder / "wheel").write_bytes(b"wheel")
        return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    gateway = DeviceNetwork.of_this_process().gateway
    folder = tmp_path_factory.mktemp("host-disks")
    with small_image_disk(folder / "disk", 640) as disk:
        async with running_host(folder / "host", disk) as host, open_workshop(folder / "workshop", gateway) as workshop:
            yield Yard(workshop, host, disk)


async def test_images_bases_and_package_caches_go_when_they_were_not_used_for_long(yard: Yard) -> None:
    pool = await yard.pool(NEVER)
    await yard.build(pool, "old", "echo old > /made")
    cache = yard.keep_cache()
    # What somebody else brought there stays.
    await yard.host.device.run("sh", "-c", "tar -C /etc -c hostname | podman import -q - localhost/of/somebody:else")
    await pool.probe(pool.hosts[0])
    before = await yard.tags()
    yard.age(200, "old", CACHE)
    await pool.probe(pool.hosts[0])
    bases = before - {"old", "else"}
    # The build's, and the one whose shell looks after it.
    assert len(bases) == 2
    assert await yard.tags() == bases | {"else"}
    assert not cache.exists()
    assert cache.parent.exists()
    yard.age(200)
    await pool.probe(pool.hosts[0])
    assert await yard.tags() == {"else"}
    await yard.host.podman("rmi", "localhost/of/somebody:else")
    # And what is needed again is sent again.
    await yard.build(pool, "young", "true")
    assert await yard.host.leftovers() == []


async def test_a_host_keeps_no_more_than_the_policy_lets_it(yard: Yard) -> None:
    pool = await yard.pool(NEVER)
    yard.age(0)
    for days, build_id in ((3, "first"), (2, "second"), (1, "third")):
        await yard.build(pool, build_id, f"head -c 30M /dev/urandom > /{build_id}")
        yard.age(days, build_id)
    size = size_below(yard.disk.path / "storage")
    await yard.pool(replace(NEVER, keep_bytes=size - 40 * MIB))
    assert {"first", "second", "third"} & await yard.tags() == {"third"}


async def test_a_host_without_room_is_emptied_and_gets_no_build_before_it_has_some(yard: Yard) -> None:
    policy = replace(NEVER, min_free_bytes=200 * MIB)
    pool = await yard.pool(policy)
    far = pool.hosts[0]
    yard.age(0)
    for days, build_id in ((3, "oldest"), (2, "older"), (1, "newest")):
        await yard.build(pool, build_id, f"head -c 30M /dev/urandom > /{build_id}")
        yard.age(days, build_id)
    # Two of them have to go; some MiB of what is free ext4 keeps for itself.
    yard.disk.fill(leave=200 * MIB - 60 * MIB)
    await pool.probe(far)
    assert far.condition == ""
    assert {"oldest", "older", "newest"} & await yard.tags() == {"newest"}
    yard.disk.fill(leave=20 * MIB)
    await pool.probe(far)
    assert "newest" not in await yard.tags()
    yard.disk.fill(leave=20 * MIB)
    await pool.probe(far)
    assert await yard.tags() == set()
    assert "its disk is nearly full: " in far.condition
    assert "200 MiB have to be before another build begins there" in far.condition
    with pytest.raises(BuildFailed, match="far: its disk is nearly full") as caught:
        await yard.build(pool, "refused", "true")
    assert caught.value.retryable
    yard.disk.free_again()
    await pool.probe(far)
    assert far.condition == ""


async def test_a_host_that_is_never_idle_gets_no_build_until_what_is_old_has_gone(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LONGEST_HINDERED", 0.0)
    pool = await yard.pool(NEVER)
    await yard.build(pool, "idle", "echo idle > /made")
    gateway, port = yard.host.device.gateway, free_port(yard.host.device.gateway)
    wait = f"until (echo > /dev/tcp/{gateway}/{port}) 2>/dev/null; do sleep 0.1; done"
    running = asyncio.create_task(yard.build(pool, "running", f"echo {WAITING}; bash -c '{wait}'"))
    await until(lambda: WAITING in yard.workshop.output(), seconds=120)
    assert pool.takes("x86-cpu", ArtifactKind.IMAGE)
    yard.age(200, "idle")
    await pool.probe(pool.hosts[0])
    assert "idle" in await yard.tags()
    assert not pool.takes("x86-cpu", ArtifactKind.IMAGE)
    async with await asyncio.start_server(lambda _, writer: writer.close(), gateway, port):
        await running
    await pool.probe(pool.hosts[0])
    assert "idle" not in await yard.tags()
    assert pool.takes("x86-cpu", ArtifactKind.IMAGE)
