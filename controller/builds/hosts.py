"""Builder hosts: each build goes to the best one; one that disappears is replaced by another."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from controller.builds.builder import ImageBuilder
from controller.builds.choosing import Choice, candidates, choose
from controller.builds.machine import HostLost, Machine
from controller.builds.model import ArtifactKind, BuildFailed, BuildResult, OnLine, OnState, TargetJob
from controller.builds.targets import TargetProfile

log = structlog.get_logger()
# Seconds between two looks at a host that is well, and between the first two at one that is not.
WELL, FIRST, LONGEST = 60.0, 2.0, 300.0
# The name of the controller's own machine.
OWN = "local"


class Place(Protocol):
    """Where a host builds."""

    # For people: "local", or the URL without credentials.
    address: str

    async def probe(self) -> "Abilities":
        """What it can build for; afterwards nothing of earlier builds of this controller is left there. Raises
        BuildFailed."""

    def open(self) -> AbstractAsyncContextManager[Machine]:
        """Its machine, for one build. Raises HostLost."""


@dataclass(frozen=True)
class Abilities:
    """The platforms for which a host builds by nature, and by emulation."""

    native: frozenset[str] = frozenset()
    emulated: frozenset[str] = frozenset()


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
    condition: str = "not asked yet"
    last_seen: float = 0.0
    failures: int = 0
    next_probe: float = field(default=0.0)

    def choice(self) -> Choice:
        known = (self.abilities.native, self.abilities.emulated)
        return Choice(self.name, *known, self.slots, self.running, not self.condition)

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

    @property
    def hosts(self) -> tuple[BuilderHost, ...]:
        return tuple(self._hosts.values())

    @property
    def slots(self) -> int:
        """How many builds can run at a time."""
        return sum(host.slots for host in self.hosts) + (0 if OWN in self._hosts else self._bundling.slots)

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        """Whether a build could begin now. Where no host is able to build it at all the answer is yes too: the build
        says why it cannot be."""
        if kind is ArtifactKind.BUNDLE:
            return self._bundling.running < self._bundling.slots
        known = self._profiles.get(profile)
        if known is None or not candidates(self._choices(), known.platform):
            return True
        return choose(self._choices(), known.platform) is not None

    def on_free(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def recover(self) -> None:
        """Ends and removes what a killed controller left, here and on the hosts that answer; the others when they do.
        Once, before the first build."""
        await self._builder.recover()
        await self._bundles.recover()
        await asyncio.gather(*(self.probe(host) for host in self.hosts))

    async def close(self) -> None:
        await self._builder.close()

    async def watch(self) -> None:
        """Looks at the hosts now and then, until cancelled."""
        while True:
            now = time.monotonic()
            due = [host for host in self.hosts if host.next_probe <= now]
            await asyncio.gather(*(self.probe(host) for host in due))
            wait = min((host.next_probe for host in self.hosts), default=now + WELL) - time.monotonic()
            await asyncio.sleep(max(0.1, wait))

    async def probe(self, host: BuilderHost) -> None:
        """Afterwards the host's condition says how it is."""
        before = host.condition
        try:
            host.seen(await host.place.probe(), time.monotonic())
        except BuildFailed as failure:
            host.failed(failure.message, time.monotonic())
        if host.condition != before:
            log.info("builder host", host=host.name, condition=host.condition or "able")
            self._wake()

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Builds and pushes; on another host where one is lost. Raises BuildFailed, which leaves nothing behind on
        any host that answers; a cancel ends it at any moment."""
        if job.kind is ArtifactKind.BUNDLE:
            return await self._build_bundle(job, on_line, on_state)
        platform = self._platform(job)
        lost: list[str] = []
        while True:
            host = self._host_for(platform, lost)
            if host is None:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                return await self._build_on(host, job, on_line, on_state)
            except HostLost as error:
                host.failed(error.message, time.monotonic())
                lost.append(host.name)
                on_line("system", f"builder host {host.name} is lost: {error.message}; another one is tried")

    def context(self, job: TargetJob) -> AbstractAsyncContextManager[Path]:
        """The folder of an image's whole build context, made on this machine, while the block lasts. Raises
        BuildFailed."""
        return self._builder.context(job)

    async def _build_on(self, host: BuilderHost, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        host.running += 1
        try:
            if len(self._hosts) > 1:
                on_line("system", f"building on {host.name}")
            async with host.place.open() as machine:
                result = await self._builder.build(job, on_line, on_state, machine)
            return replace(result, host=host.name)
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

    def _host_for(self, platform: str, lost: Iterable[str]) -> BuilderHost | None:
        """None while all that could build are busy. Raises BuildFailed where there is none."""
        lost = tuple(lost)
        if not candidates(self._choices(), platform, lost):
            raise self._nobody(platform)
        chosen = choose(self._choices(), platform, lost)
        return None if chosen is None else self._hosts[chosen.name]

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
        for listener in self._listeners:
            listener()
