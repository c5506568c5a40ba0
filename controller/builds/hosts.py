"""Builder hosts: each build goes to the best one; one that disappears is replaced by another."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from controller.builds.builder import ImageBuilder
from controller.builds.choosing import Choice, candidates, choose
from controller.builds.machine import HostLost, Machine
from controller.builds.model import ArtifactKind, BuildFailed, BuildResult, OnLine, OnState, TargetJob
from controller.builds.targets import TargetProfile

log = structlog.get_logger()
T = TypeVar("T")
# Seconds between two looks at a host that is well, and between the first two at one that is not.
WELL, FIRST, LONGEST = 60.0, 2.0, 300.0
# Seconds in which a host has to say how it is, and to have removed what earlier builds left.
PROBE_DEADLINE = 180.0
# Seconds until what a killed controller left is seen to again, where that failed.
AGAIN = 5.0
NOT_ASKED = "not asked yet"
# The name of the controller's own machine.
OWN = "local"


class Place(Protocol):
    """Where a host builds."""

    # For people: "local", or the URL without credentials.
    address: str

    @property
    def wants_rest(self) -> bool:
        """Whether no build should begin there until those that run have ended, and it was probed once more."""

    async def probe(self) -> "Abilities":
        """What it can build for; afterwards nothing of earlier builds of this controller is left there. Raises
        BuildFailed."""

    def open(self) -> AbstractAsyncContextManager[Machine]:
        """Its machine, for one build. Raises HostLost."""


@dataclass(frozen=True)
class Abilities:
    """The platforms for which a host builds by nature, by emulation, and as long as nothing of the image has to run."""

    native: frozenset[str] = frozenset()
    emulated: frozenset[str] = frozenset()
    laid_out: frozenset[str] = frozenset()


class ArtifactBuilder(Protocol):
    """Builds what is no image."""

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult: ...

    async def recover(self) -> None: ...


@dataclass
class Slots:
    """How many builds there can be at a time, and are."""

    slots: int
    running: int = 0


@dataclass
class BuilderHost:
    """A host and how it is. `condition`: what is wrong, "" when it is able to build."""

    name: str
    place: Place
    slots: int
    abilities: Abilities = Abilities()
    running: int = 0
    condition: str = NOT_ASKED
    last_seen: float = 0.0
    failures: int = 0
    next_probe: float = field(default=0.0)

    def choice(self) -> Choice:
        can = self.abilities
        able = not self.condition
        slots = 0 if self.place.wants_rest else self.slots
        return Choice(self.name, can.native, can.emulated, slots, self.running, able, can.laid_out)

    def may_run(self, platform: str) -> bool:
        """Whether it ran programs of the platform when it was last seen, or was never seen."""
        never = self.abilities == Abilities()
        return never or self.choice().runs(platform)

    def seen(self, abilities: Abilities, now: float) -> None:
        self.abilities, self.condition, self.failures = abilities, "", 0
        self.last_seen, self.next_probe = time.time(), now + WELL

    def failed(self, condition: str, now: float) -> None:
        self.condition = condition
        self.next_probe = now + min(LONGEST, FIRST * 2 ** min(self.failures, 10))
        self.failures += 1


class BuilderPool:
    """The builder that a queue works with: images on the best host, bundles on this machine.

    Bundles take slots of this machine where it builds images too, else `bundle_slots`.
    """

    def __init__(
        self,
        builder: ImageBuilder,
        hosts: Sequence[BuilderHost],
        profiles: Mapping[str, TargetProfile],
        bundles: ArtifactBuilder,
        bundle_slots: int = 2,
    ) -> None:
        self._builder = builder
        self._hosts = {host.name: host for host in hosts}
        self._profiles = profiles
        self._bundles = bundles
        self._bundling = self._hosts.get(OWN) or Slots(bundle_slots)
        self._listeners: list[Callable[[], None]] = []
        self._freed = asyncio.Event()
        # How many want that nothing is made, and what wakes them.
        self._resting = 0
        self._ended = asyncio.Event()
        self._recovered = asyncio.Event()

    @property
    def hosts(self) -> tuple[BuilderHost, ...]:
        return tuple(self._hosts.values())

    @property
    def slots(self) -> int:
        """How many builds can run at a time."""
        return sum(host.slots for host in self.hosts) + (0 if OWN in self._hosts else self._bundling.slots)

    @property
    def busy(self) -> bool:
        """Whether anything is made that may use what lies on this machine; also a bundle, or a build context."""
        running = self._bundling.running + sum(host.running for host in self.hosts)
        return running > 0 or self._builder.machine.leavings.building

    @property
    def untidy(self) -> bool:
        """Whether builds have left something on this machine that goes only when none runs there."""
        return self._builder.machine.leavings.untidy

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Nothing is made in the block: what runs ends before, as long as that takes, and no build begins."""
        self._resting += 1
        try:
            while self.busy:
                self._ended.clear()
                await self._ended.wait()
            yield
        finally:
            self._resting -= 1
            self._wake()

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        """Whether a build could begin now. Where no host is able to build it at all the answer is yes too, once all
        were asked: the build says why it cannot be."""
        if self._resting:
            return False
        if kind is ArtifactKind.BUNDLE:
            return self._bundling.running < self._bundling.slots
        known = self._profiles.get(profile)
        if known is None:
            return True
        if self._is_unknown(known.platform):
            return False
        choices = self._choices()
        return not candidates(choices, known.platform) or choose(choices, known.platform) is not None

    def on_free(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def recover(self) -> None:
        """Ends and removes what a killed controller left here; on other hosts `watch` does. Once, before the first
        build."""
        while not self._recovered.is_set():
            try:
                await self._builder.recover()
                await self._bundles.recover()
                self._recovered.set()
            except OSError:
                # A full disk: no build begins, and all else goes on.
                log.exception("what the last process left cannot be removed yet")
                await asyncio.sleep(AGAIN)

    async def close(self) -> None:
        await self._builder.close()

    async def watch(self) -> None:
        """Looks at the hosts now and then, from `recover` on, until cancelled."""
        # Which ends all that was started for this builder.
        await self._recovered.wait()
        await asyncio.gather(*(self._watch(host) for host in self.hosts))

    async def _watch(self, host: BuilderHost) -> None:
        """By itself, so that a host that does not answer holds up no other."""
        while True:
            if (wait := host.next_probe - time.monotonic()) <= 0:
                await self.probe(host)
            else:
                # Step by step, since a build that loses the host changes when it is due.
                await asyncio.sleep(min(wait, FIRST))

    async def probe(self, host: BuilderHost) -> None:
        """Afterwards the host's condition says how it is."""
        before = host.condition, host.place.wants_rest
        try:
            async with asyncio.timeout(PROBE_DEADLINE):
                abilities = await host.place.probe()
            host.seen(abilities, time.monotonic())
        except BuildFailed as failure:
            host.failed(failure.message, time.monotonic())
        except TimeoutError:
            host.failed(f"{host.place.address} is not done within {PROBE_DEADLINE:g} s", time.monotonic())
        except Exception as error:
            # The host is not able; all others, and the controller, go on.
            log.exception("a builder host cannot be asked", host=host.name)
            host.failed(f"it cannot be asked: {error or type(error).__name__}", time.monotonic())
        if (host.condition, host.place.wants_rest) != before:
            log.info("builder host", host=host.name, condition=host.condition or "able")
            self._wake()

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Builds and pushes; on another host where one is lost. Raises BuildFailed, which leaves nothing behind on
        any host that answers; a cancel ends it at any moment."""
        if job.kind is ArtifactKind.BUNDLE:
            return await self._build_bundle(job, on_line, on_state)

        async def work(machine: Machine) -> BuildResult:
            return await self._builder.build(job, on_line, on_state, machine)

        host, result = await self._on_best(self._platform(job), on_line, work)
        return replace(result, host=host.name)

    async def on_machine(
        self, profile: TargetProfile, on_line: OnLine, work: Callable[[Machine], Awaitable[None]]
    ) -> None:
        """Does a part of a bundle that runs, on a machine that runs the platform's programs: this one, whose slot the
        bundle has, unless it builds no images or only another one is native; on another host where one is lost. Raises
        BuildFailed where there is none."""
        machine = self._builder.machine
        others = [each for each in self._choices() if each.name != OWN and each.able]
        emulates = profile.architecture != machine.architecture
        if OWN in self._hosts and not (emulates and any(profile.platform in each.native for each in others)):
            await work(machine)
        else:
            await self._on_best(profile.platform, on_line, work, (OWN,), begun=True)

    async def _on_best(
        self,
        platform: str,
        on_line: OnLine,
        work: Callable[[Machine], Awaitable[T]],
        lost: Sequence[str] = (),
        begun: bool = False,
    ) -> tuple[BuilderHost, T]:
        """On the best host, on another one where it is lost. `begun`: as a part of what runs already."""
        lost = list(lost)
        while True:
            host = self._host_for(platform, lost, begun)
            if host is None:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                return host, await self._work_on(host, on_line, work)
            except HostLost as error:
                host.failed(error.message, time.monotonic())
                lost.append(host.name)
                on_line("system", f"builder host {host.name} is lost: {error.message}; another one is tried")
            except BuildFailed as failure:
                if away := self._away(failure, host, platform):
                    raise away from failure
                raise

    @asynccontextmanager
    async def context(self, job: TargetJob) -> AsyncIterator[Path]:
        """The folder of an image's whole build context, made on this machine, while the block lasts. Raises
        BuildFailed."""
        try:
            async with self._builder.context(job) as folder:
                yield folder
        finally:
            self._ended.set()

    async def _work_on(self, host: BuilderHost, on_line: OnLine, work: Callable[[Machine], Awaitable[T]]) -> T:
        host.running += 1
        try:
            if len(self._hosts) > 1:
                on_line("system", f"building on {host.name}")
            async with host.place.open() as machine:
                return await work(machine)
        finally:
            host.running -= 1
            self._wake()

    async def _build_bundle(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        self._bundling.running += 1
        try:
            return await self._bundles.build(job, on_line, on_state)
        finally:
            self._bundling.running -= 1
            self._wake()

    def _host_for(self, platform: str, lost: Iterable[str], begun: bool) -> BuilderHost | None:
        """None while nobody may build, all that could are busy, or not asked yet. Raises BuildFailed where there is
        none."""
        lost = tuple(lost)
        # Whoever wants rest waits for what has begun.
        if (self._resting and not begun) or self._is_unknown(platform, lost):
            return None
        if not candidates(self._choices(), platform, lost):
            raise self._nobody(platform)
        chosen = choose(self._choices(), platform, lost)
        return None if chosen is None else self._hosts[chosen.name]

    def _is_unknown(self, platform: str, lost: Sequence[str] = ()) -> bool:
        """Whether a host may run programs of the platform that was not asked yet, and no other is known to."""
        known = candidates(self._choices(), platform, lost)
        return not any(each.runs(platform) for each in known) and any(
            host.condition == NOT_ASKED for host in self.hosts
        )

    def _away(self, failure: BuildFailed, host: BuilderHost, platform: str) -> BuildFailed | None:
        """What is told where the host runs nothing for the platform, and another one may that is not able to now."""
        away = [each for each in self.hosts if each is not host and each.condition and each.may_run(platform)]
        if failure.reason != "EmulationUnavailable" or not away:
            return None
        causes = "; ".join(f"{each.name}: {each.condition}" for each in away)
        return BuildFailed(
            "BuilderUnavailable", f"{failure.message}; who may build it is not able to: {causes}", retryable=True
        )

    def _nobody(self, platform: str) -> BuildFailed:
        if broken := [host for host in self.hosts if host.condition]:
            causes = "; ".join(f"{host.name}: {host.condition}" for host in broken)
            reason = "BuilderUnavailable" if len(self._hosts) > 1 else "PodmanUnavailable"
            return BuildFailed(reason, f"no builder host can build for {platform} now: {causes}", retryable=True)
        return BuildFailed(
            "EmulationUnavailable",
            f"no builder host builds for {platform}; install qemu-user-static and binfmt-support on one, or add a "
            "machine of that architecture",
        )

    def _platform(self, job: TargetJob) -> str:
        profile = self._profiles.get(job.profile)
        if profile is None:
            raise BuildFailed("UnknownProfile", f"there is no target profile {job.profile!r}")
        return profile.platform

    def _choices(self) -> list[Choice]:
        return [host.choice() for host in self.hosts]

    def _wake(self) -> None:
        self._freed.set()
        self._ended.set()
        for listener in self._listeners:
            listener()
