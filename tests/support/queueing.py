"""A queue of builds with a builder that a test directs, on a store of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller.builds.cancelling import is_stop
from controller.builds.desk import Builder
from controller.builds.holding import Hold
from controller.builds.joining import Joiner
from controller.builds.logs import BuildLogLine, BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import (
    ArtifactKind,
    Build,
    BuildFailed,
    BuildResult,
    BuildState,
    BuildTarget,
    OnLine,
    OnState,
    RegistryAccess,
    TargetJob,
)
from controller.builds.queue import BuildQueue, Desk
from controller.builds.reuse import Reuse
from controller.builds.service import BuildService
from controller.builds.targets import load_profiles
from controller.builds.uploads import UploadStore
from controller.sealing import SecretBox
from controller.store import Store, open_store
from tests.support.rows import ARTIFACT, build

SPEC = b"""\
version: 1
name: digits
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: x86-cpu}]
"""
NOWHERE = RegistryAccess("127.0.0.1:1", None, lambda: ("", ""))


class ScriptedBuilder:
    """Builds take until `gate` is open; failures come from a list. `held`: profiles for which no build can begin."""

    def __init__(self) -> None:
        self.recovered = 0
        self.jobs: list[TargetJob] = []
        self.failures: list[BuildFailed] = []
        self.gate = asyncio.Event()
        self.held: set[str] = set()
        self.busy: list[TargetJob] = []
        self.busiest = 0
        self.ended_early: list[str] = []
        # Of these, those that were not their users' wish.
        self.stopped: list[str] = []
        self._listeners: list[Callable[[], None]] = []

    @property
    def begun(self) -> list[str]:
        """Ids of builds in the order in which their targets came."""
        return [job.build_id for job in self.jobs]

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        return profile not in self.held

    def on_free(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def free(self, profile: str) -> None:
        """Builds for this profile can begin from now on."""
        self.held.discard(profile)
        for listener in self._listeners:
            listener()

    async def recover(self) -> None:
        self.recovered += 1

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        self.jobs.append(job)
        self.busy.append(job)
        self.busiest = max(self.busiest, len(self.busy))
        try:
            on_state(BuildState.PREPARING)
            on_line("stdout", f"building {job.name}")
            on_state(BuildState.BUILDING)
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
            on_state(BuildState.PUSHING)
            return BuildResult(replace(ARTIFACT, repository=job.repository))
        except asyncio.CancelledError as error:
            self.ended_early.append(job.build_id)
            if is_stop(error):
                self.stopped.append(job.build_id)
            raise
        finally:
            self.busy.remove(job)


@dataclass
class Bench:
    """A store and what works on it."""

    folder: Path
    store: Store
    logs: BuildLogs
    builder: Builder
    access: RegistryAccess = NOWHERE
    parallel: int = 2
    per_user: int = 64
    retry_seconds: float = 3600.0
    reuse_hours: float = 24.0
    # Why no build may begin.
    not_ready: str = ""
    # Indexes, as `controller.builds.pushed.OnPushed`.
    pushed: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def secrets(self) -> SecretBox:
        return SecretBox(self.folder / "secrets.key")

    @property
    def reuse(self) -> Reuse:
        return Reuse(self.store, self.access, self.reuse_hours)

    def service(self, uploads: UploadStore | None = None) -> BuildService:
        """What users talk to."""
        held = uploads or UploadStore(self.folder / "uploads", min_free_bytes=0)
        return BuildService(self.store, held, load_profiles(), self.reuse, self.secrets, self.access.address, self.logs)

    def queue(self) -> BuildQueue:
        desk = Desk(
            self.store, self.builder, self.logs, self.reuse, self.secrets, MaterialsStore(self.folder / "materials"),
            load_profiles(), self.access.address, self.retry_seconds,
        )  # fmt: skip
        joiner = Joiner(
            self.store, self.logs, self.access, self.retry_seconds, lambda *told: self.pushed.append(told)
        )  # fmt: skip
        return BuildQueue(desk, joiner, self.parallel, self.per_user, Hold(self.store, lambda: self.not_ready))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A queue works until the block ends; it must not have broken."""
        task = asyncio.create_task(self.queue().run())
        try:
            yield
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended

    async def add(
        self, number: int, user: str = "alice", profiles: tuple[str, ...] = ("x86-cpu",), spec: bytes = SPEC
    ) -> str:
        """A waiting build b-NUMBER, older for a smaller number."""
        targets = tuple(BuildTarget(profile, profile, "linux/amd64") for profile in profiles)
        made = replace(build(BuildState.QUEUED), targets=targets, id=f"b-{number}", user_id=user, spec=spec)
        await self.store.transact(lambda tx: tx.builds.add(replace(made, created=float(number)), ""))
        return made.id

    async def found(self, build_id: str) -> Build:
        answer = await self.store.transact(lambda tx: tx.builds.get(build_id))
        assert answer is not None
        return answer

    async def target(self, build_id: str) -> BuildTarget:
        """The first target of a build."""
        return (await self.found(build_id)).targets[0]

    async def reaches(self, build_id: str, *states: BuildState) -> Build:
        """The build once it is in one of these states."""
        return await self.comes_to(lambda build: build.state in states, build_id)

    async def comes_to(self, holds: Callable[[Build], bool], build_id: str, seconds: float = 30) -> Build:
        """The build once this holds of it."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not holds(found := await self.found(build_id)):
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.005)
        return found

    async def lines(self, build_id: str) -> list[BuildLogLine]:
        """The log so far."""

        async def has_ended() -> bool:
            return True

        return [line async for line in self.logs.read(build_id, 0, False, has_ended)]


@asynccontextmanager
async def open_bench(folder: Path, builder: Builder, **settings: object) -> AsyncIterator[Bench]:
    store = open_store(folder / "controller.db")
    try:
        yield Bench(folder, store, BuildLogs(folder / "logs"), builder, **settings)  # type: ignore[arg-type]
    finally:
        store.close()
