"""The pool of builder hosts: who gets a build, what happens when one is lost. Hosts and builder are scripted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from controller.builds.builder import ImageBuilder
from controller.builds.hosts import Abilities, BuilderHost, BuilderPool
from controller.builds.machine import HostLost, Machine
from controller.builds.model import ArtifactKind, BuildFailed, BuildResult, OnLine, OnState, TargetJob
from controller.builds.targets import load_profiles
from controller.spec.model import BuildSpec
from tests.support.async_waiting import until

AMD, ARM = "linux/amd64", "linux/arm64"


class ScriptedPlace:
    """A host whose machine is its name; it answers while `alive`."""

    def __init__(self, name: str, native: str) -> None:
        self.address = f"ssh://root@{name}/socket"
        self.name = name
        self.native = native
        self.alive = True

    async def probe(self) -> Abilities:
        if not self.alive:
            raise HostLost(f"{self.name} does not answer")
        return Abilities(frozenset({self.native}))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Machine]:
        if not self.alive:
            raise HostLost(f"{self.name} does not answer")
        yield cast(Machine, self.name)


class ScriptedBuilder:
    """Builds wait for `go`; a build on a machine in `losing` finds it lost."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.losing: set[str] = set()
        self.machines: list[str] = []

    async def recover(self) -> None: ...

    async def close(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState, machine: Any = None) -> BuildResult:
        self.machines.append(machine)
        await self.go.wait()
        if machine in self.losing:
            raise HostLost(f"{machine} has gone")
        return BuildResult(None)


class Pool:
    """A pool over scripted hosts."""

    def __init__(self, *places: ScriptedPlace, slots: int = 1) -> None:
        self.builder = ScriptedBuilder()
        self.lines: list[str] = []
        hosts = [BuilderHost(place.name, place, slots) for place in places]
        bundles = cast(Any, self.builder)
        self.pool = BuilderPool(cast(ImageBuilder, self.builder), hosts, load_profiles(), bundles, 1)

    async def build(self, profile: str = "x86-cpu", kind: ArtifactKind = ArtifactKind.IMAGE) -> BuildResult:
        job = TargetJob(
            "b1", "alice", "vision", "digits", profile, BuildSpec(), "registry:5000/alice/digits", kind=kind
        )
        return await self.pool.build(job, lambda _, text: self.lines.append(text), lambda _: None)


async def until_machines(pool: Pool, count: int) -> None:
    await until(lambda: len(pool.builder.machines) >= count, seconds=30)


async def test_a_lost_host_is_replaced_at_once_and_the_log_says_so() -> None:
    pool = Pool(ScriptedPlace("one", AMD), ScriptedPlace("two", AMD))
    await pool.pool.recover()
    pool.builder.losing = {"one"}
    assert (await pool.build()).host == "two"
    assert pool.builder.machines == ["one", "two"]
    assert any("one is lost: one has gone" in line for line in pool.lines)
    assert pool.pool.hosts[0].condition == "one has gone"


async def test_where_no_other_host_is_the_build_may_be_tried_again_later() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.pool.recover()
    pool.builder.losing = {"one"}
    with pytest.raises(BuildFailed) as caught:
        await pool.build()
    assert caught.value.retryable
    assert "one has gone" in caught.value.message


async def test_a_host_that_comes_back_is_used_again_and_waiting_builds_hear_of_it() -> None:
    place = ScriptedPlace("one", AMD)
    place.alive = False
    pool = Pool(place)
    heard: list[bool] = []
    pool.pool.on_free(lambda: heard.append(True))
    await pool.pool.recover()
    assert pool.pool.hosts[0].condition == "one does not answer"
    heard.clear()
    place.alive = True
    await pool.pool.probe(pool.pool.hosts[0])
    assert heard == [True]
    assert (await pool.build()).host == "one"


async def test_a_host_that_stays_away_is_asked_less_and_less_often() -> None:
    host = BuilderHost("one", ScriptedPlace("one", AMD), 1)
    pauses = []
    for _ in range(12):
        host.failed("away", 0.0)
        pauses.append(host.next_probe)
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert pauses[-1] == 300.0


async def test_a_full_pool_takes_nothing_until_a_build_ends() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.pool.recover()
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build())
    await until_machines(pool, 1)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
    waiting = asyncio.create_task(pool.build())
    pool.builder.go.set()
    assert {(await running).host, (await waiting).host} == {"one"}
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)


async def test_a_cancelled_build_frees_its_slot() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.pool.recover()
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build())
    await until_machines(pool, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)


async def test_a_platform_that_nobody_builds_is_a_final_failure_that_says_what_to_do() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.pool.recover()
    assert pool.pool.takes("arm64-cpu", ArtifactKind.IMAGE)
    with pytest.raises(BuildFailed) as caught:
        await pool.build("arm64-cpu")
    assert (caught.value.reason, caught.value.retryable) == ("EmulationUnavailable", False)


async def test_bundles_have_slots_of_their_own_where_this_machine_builds_no_images() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.pool.recover()
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.BUNDLE)
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
    pool.builder.go.set()
    await running


async def test_bundles_and_images_share_the_slots_of_this_machine() -> None:
    pool = Pool(ScriptedPlace("local", AMD))
    await pool.pool.recover()
    assert pool.pool.slots == 1
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.BUNDLE)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
    pool.builder.go.set()
    await running
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
