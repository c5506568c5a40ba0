"""The pool of builder hosts: who gets a build, what happens when one is lost. Hosts and builder are scripted."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.builds import hosts
from controller.builds.builder import ImageBuilder
from controller.builds.hosts import Abilities, BuilderHost, BuilderPool
from controller.builds.leavings import Leavings
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
        self.wants_rest = False
        self.emulated: frozenset[str] = frozenset()
        self.laid_out: frozenset[str] = frozenset()
        # What asking it raises, and what it waits for.
        self.breaks: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def probe(self) -> Abilities:
        await self.answers.wait()
        if self.breaks is not None:
            raise self.breaks
        if not self.alive:
            raise HostLost(f"{self.name} does not answer")
        return Abilities(frozenset({self.native}), self.emulated, self.laid_out)

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
        self.unable: set[str] = set()
        self.machines: list[str] = []
        self.machine = SimpleNamespace(leavings=Leavings(), architecture="amd64")
        self.recoveries: list[Exception] = []

    async def recover(self) -> None:
        if self.recoveries:
            raise self.recoveries.pop()

    async def close(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState, machine: Any = None) -> BuildResult:
        self.machines.append(machine)
        await self.go.wait()
        if machine in self.losing:
            raise HostLost(f"{machine} has gone")
        if machine in self.unable:
            raise BuildFailed("EmulationUnavailable", f"{machine} cannot run it")
        return BuildResult(None)


class Pool:
    """A pool over scripted hosts."""

    def __init__(self, *places: ScriptedPlace, slots: int = 1) -> None:
        self.builder = ScriptedBuilder()
        self.lines: list[str] = []
        hosts = [BuilderHost(place.name, place, slots) for place in places]
        bundles = cast(Any, self.builder)
        self.pool = BuilderPool(cast(ImageBuilder, self.builder), hosts, load_profiles(), bundles, 1)

    async def ready(self) -> None:
        """Afterwards all hosts were asked once."""
        await self.pool.recover()
        for host in self.pool.hosts:
            await self.pool.probe(host)

    async def build(self, profile: str = "x86-cpu", kind: ArtifactKind = ArtifactKind.IMAGE) -> BuildResult:
        job = TargetJob(
            "b1", "alice", "vision", "digits", profile, BuildSpec(), "registry:5000/alice/digits", kind=kind
        )
        return await self.pool.build(job, lambda _, text: self.lines.append(text), lambda _: None)


async def until_machines(pool: Pool, count: int) -> None:
    await until(lambda: len(pool.builder.machines) >= count, seconds=30)


async def test_what_uses_this_machine_is_busy_also_where_it_is_no_host() -> None:
    pool, seen = Pool(), list[bool]()
    seen.append(pool.pool.busy)
    pool.builder.go.clear()
    bundle = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)
    seen.append(pool.pool.busy)
    pool.builder.go.set()
    await bundle
    seen.append(pool.pool.busy)
    # As a context that somebody fetches does.
    await pool.builder.machine.leavings.begin()
    seen.append(pool.pool.busy)
    assert seen == [False, True, False, True]


async def test_a_lost_host_is_replaced_at_once_and_the_log_says_so() -> None:
    pool = Pool(ScriptedPlace("one", AMD), ScriptedPlace("two", AMD))
    await pool.ready()
    pool.builder.losing = {"one"}
    assert (await pool.build()).host == "two"
    assert pool.builder.machines == ["one", "two"]
    assert any("one is lost: one has gone" in line for line in pool.lines)
    assert pool.pool.hosts[0].condition == "one has gone"


async def test_where_no_other_host_is_the_build_may_be_tried_again_later() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.ready()
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
    await pool.ready()
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
    await pool.ready()
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
    await pool.ready()
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build())
    await until_machines(pool, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)


async def test_a_platform_that_nobody_builds_is_a_final_failure_that_says_what_to_do() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.ready()
    assert pool.pool.takes("arm64-cpu", ArtifactKind.IMAGE)
    with pytest.raises(BuildFailed) as caught:
        await pool.build("arm64-cpu")
    assert (caught.value.reason, caught.value.retryable) == ("EmulationUnavailable", False)


async def test_bundles_have_slots_of_their_own_where_this_machine_builds_no_images() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.ready()
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.BUNDLE)
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
    pool.builder.go.set()
    await running


async def test_bundles_and_images_share_the_slots_of_this_machine() -> None:
    pool = Pool(ScriptedPlace("local", AMD))
    await pool.ready()
    assert pool.pool.slots == 1
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.BUNDLE)
    assert not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
    pool.builder.go.set()
    await running
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)


@asynccontextmanager
async def watched(pool: Pool) -> AsyncIterator[None]:
    """As a controller runs it."""
    watching = asyncio.create_task(pool.pool.watch())
    try:
        await pool.pool.recover()
        yield
        assert not watching.done(), "the watch has ended"
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_host_that_breaks_when_it_is_asked_is_not_able_and_all_goes_on() -> None:
    full, well = ScriptedPlace("full", AMD), ScriptedPlace("well", AMD)
    full.breaks = OSError(errno.ENOSPC, "No space left on device")
    pool = Pool(full, well)
    async with watched(pool):
        assert (await pool.build()).host == "well"
        await until(lambda: "No space left on device" in pool.pool.hosts[0].condition, seconds=30)
        full.breaks = None
        await until(lambda: pool.pool.hosts[0].condition == "", seconds=30)


async def test_what_cannot_be_removed_at_the_start_is_tried_again_until_builds_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "AGAIN", 0.01)
    pool = Pool(ScriptedPlace("one", AMD))
    pool.builder.recoveries = [OSError(errno.ENOSPC, "No space left on device")] * 2
    async with watched(pool):
        assert pool.builder.recoveries == []
        assert (await pool.build()).host == "one"


async def test_a_host_that_never_answers_holds_up_no_build_and_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PROBE_DEADLINE", 0.2)
    silent, well = ScriptedPlace("silent", AMD), ScriptedPlace("well", AMD)
    silent.answers.clear()
    pool = Pool(silent, well)
    async with watched(pool):
        assert (await pool.build()).host == "well"
        await until(lambda: "not done within 0.2 s" in pool.pool.hosts[0].condition, seconds=30)
        pool.builder.losing = {"well"}
        with pytest.raises(BuildFailed):
            await pool.build()
        pool.builder.losing = set()
        # It was due in a minute when it was lost.
        await until(lambda: pool.pool.hosts[1].condition == "", seconds=30)


async def test_a_build_waits_until_the_hosts_that_may_build_it_were_asked() -> None:
    place = ScriptedPlace("one", AMD)
    place.answers.clear()
    pool = Pool(place)
    async with watched(pool):
        assert not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
        waiting = asyncio.create_task(pool.build())
        place.answers.set()
        assert (await waiting).host == "one"


async def test_what_emulates_is_preferred_to_what_runs_nothing_also_while_it_is_busy() -> None:
    own, far = ScriptedPlace("local", AMD), ScriptedPlace("far", AMD)
    own.laid_out, far.emulated = frozenset({ARM}), frozenset({ARM})
    pool = Pool(own, far)
    await pool.ready()
    assert (await pool.build("arm64-cpu")).host == "far"
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build("arm64-cpu"))
    await until_machines(pool, 2)
    assert not pool.pool.takes("arm64-cpu", ArtifactKind.IMAGE)
    pool.builder.go.set()
    await running


async def test_what_runs_nothing_builds_while_the_other_is_away_and_says_no_for_good_only_where_none_is() -> None:
    own, far = ScriptedPlace("local", AMD), ScriptedPlace("far", AMD)
    own.laid_out, far.emulated = frozenset({ARM}), frozenset({ARM})
    pool = Pool(own, far)
    await pool.ready()
    far.alive = False
    await pool.pool.probe(pool.pool.hosts[1])
    assert (await pool.build("arm64-cpu")).host == "local"
    pool.builder.unable = {"local"}
    with pytest.raises(BuildFailed, match="far does not answer") as caught:
        await pool.build("arm64-cpu")
    assert (caught.value.reason, caught.value.retryable) == ("BuilderUnavailable", True)
    alone = Pool(own)
    await alone.ready()
    alone.builder.unable = {"local"}
    with pytest.raises(BuildFailed) as caught:
        await alone.build("arm64-cpu")
    assert (caught.value.reason, caught.value.retryable) == ("EmulationUnavailable", False)


async def test_a_rest_waits_for_what_runs_and_lets_nothing_begin() -> None:
    pool = Pool(ScriptedPlace("local", AMD), ScriptedPlace("far", AMD), slots=2)
    await pool.ready()
    heard: list[bool] = []
    pool.pool.on_free(lambda: heard.append(True))
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build())
    await until_machines(pool, 1)
    seen: list[str] = []

    async def rest() -> None:
        async with pool.pool.resting():
            seen.append(f"rest with {len(pool.builder.machines)} begun")
            await asyncio.to_thread(lambda: None)
            assert not pool.pool.busy

    resting = asyncio.create_task(rest())
    await until(lambda: not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE))
    assert not pool.pool.takes("x86-cpu", ArtifactKind.BUNDLE)
    # One that lost its host meanwhile looks for another one.
    waiting = asyncio.create_task(pool.build())
    await asyncio.sleep(0)
    assert seen == []
    heard.clear()
    pool.builder.go.set()
    await running
    await resting
    assert seen == ["rest with 1 begun"]
    await waiting
    assert heard
    assert pool.pool.takes("x86-cpu", ArtifactKind.BUNDLE)


async def test_a_rest_that_is_given_up_holds_nobody_up() -> None:
    pool = Pool(ScriptedPlace("local", AMD))
    await pool.ready()
    pool.builder.go.clear()
    running = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)

    async def rest() -> None:
        async with pool.pool.resting():
            raise AssertionError("a bundle is being made")

    resting = asyncio.create_task(rest())
    await until(lambda: not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE))
    resting.cancel()
    await asyncio.wait([resting])
    pool.builder.go.set()
    await running
    assert pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)


async def machine_for_a_part(pool: Pool, profile: str) -> str:
    """The machine on which a part of a bundle for this profile runs."""
    used: list[str] = []

    async def work(machine: Machine) -> None:
        used.append("local" if machine is pool.builder.machine else str(machine))
        if used[-1] in pool.builder.losing:
            raise HostLost(f"{machine} has gone")

    await pool.pool.on_machine(load_profiles()[profile], lambda _, text: pool.lines.append(text), work)
    return used[-1]


async def test_a_part_of_a_bundle_runs_here_where_this_machine_builds_and_no_other_is_native() -> None:
    pool = Pool(ScriptedPlace("local", AMD), ScriptedPlace("one", AMD), ScriptedPlace("arm", ARM))
    await pool.ready()
    # In the slot of its bundle: another one is not waited for.
    pool.pool.hosts[0].running = pool.pool.hosts[0].slots
    assert await machine_for_a_part(pool, "x86-cpu") == "local"
    assert await machine_for_a_part(pool, "arm64-cpu") == "arm"
    pool.pool.hosts[2].failed("away", 0.0)
    assert await machine_for_a_part(pool, "arm64-cpu") == "local"


async def test_a_part_of_a_bundle_never_runs_here_where_this_machine_builds_nothing() -> None:
    pool = Pool(ScriptedPlace("one", AMD), ScriptedPlace("two", AMD))
    await pool.ready()
    pool.builder.losing = {"one"}
    assert await machine_for_a_part(pool, "x86-cpu") == "two"
    assert any("one is lost: one has gone" in line for line in pool.lines)
    with pytest.raises(BuildFailed) as caught:
        await machine_for_a_part(pool, "arm64-cpu")
    assert caught.value.reason == "BuilderUnavailable"


async def test_a_part_of_a_bundle_goes_on_while_somebody_waits_for_rest() -> None:
    pool = Pool(ScriptedPlace("one", AMD))
    await pool.ready()
    pool.builder.go.clear()
    bundle = asyncio.create_task(pool.build(kind=ArtifactKind.BUNDLE))
    await until_machines(pool, 1)

    async def rest() -> None:
        async with pool.pool.resting():
            pass

    resting = asyncio.create_task(rest())
    await until(lambda: not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE))
    async with asyncio.timeout(10):
        assert await machine_for_a_part(pool, "x86-cpu") == "one"
    pool.builder.go.set()
    await bundle
    await resting


async def test_a_host_that_wants_rest_gets_no_build_until_it_has_had_it() -> None:
    one, two = ScriptedPlace("one", AMD), ScriptedPlace("two", AMD)
    pool = Pool(one, two)
    await pool.ready()
    heard: list[bool] = []
    pool.pool.on_free(lambda: heard.append(True))
    one.wants_rest = two.wants_rest = True
    assert not pool.pool.takes("x86-cpu", ArtifactKind.IMAGE)
    waiting = asyncio.create_task(pool.build())
    await asyncio.sleep(0)
    assert pool.builder.machines == []
    probe = two.probe

    async def rests() -> Abilities:
        two.wants_rest = False
        return await probe()

    two.probe = rests  # type: ignore[method-assign]
    await pool.pool.probe(pool.pool.hosts[1])
    assert heard == [True]
    assert (await waiting).host == "two"
