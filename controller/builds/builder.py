"""Builds one target of one request: base, Containerfile, `podman build`, push; known from then on by digest."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from controller.builds import recovery
from controller.builds.bases import Base, BaseResolver
from controller.builds.bootstrap import Bootstrapper
from controller.builds.cancelling import despite_cancel
from controller.builds.full_disk import waiting_for_room
from controller.builds.image_build import ImageBuild, Workbench
from controller.builds.machine import HostLost, Machine, OwnMachine
from controller.builds.model import BuildFailed, BuildResult, OnLine, OnState, RegistryAccess, TargetJob
from controller.builds.podman import Podman
from controller.builds.pushed import OnPushed, nobody
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile, load_profiles
from controller.builds.uploads import UploadStore


class ImageBuilder:
    """Builds in a Podman storage of its own below `work_dir`; one ImageBuilder per folder, any number of builds."""

    def __init__(
        self,
        work_dir: Path,
        uploads: UploadStore,
        access: RegistryAccess,
        settings: BuilderSettings | None = None,
        profiles: Mapping[str, TargetProfile] | None = None,
        on_pushed: OnPushed = nobody,
    ) -> None:
        settings = settings or BuilderSettings()
        profiles = load_profiles() if profiles is None else profiles
        self.podman = Podman(work_dir, settings.storage_driver)
        cache = settings.base_cache or work_dir / "bases"
        self.machine = OwnMachine(self.podman)
        bases = BaseResolver(
            self.podman,
            Bootstrapper(self.podman, cache, settings),
            access,
            settings.registry_timeout,
            settings.unreachable_memory,
            settings.base_registries,
            unwanted=self.machine.leavings.unwanted,
        )
        self._bench = Workbench(settings, profiles, uploads, access, bases, self.podman, on_pushed)
        self._able = False

    async def probe(self) -> str:
        """ "" when builds can run, else what is wrong: "PodmanNotInstalled: ..."."""
        if not self.podman.installed():
            return "PodmanNotInstalled: the program podman is not there; install the package podman"
        await asyncio.to_thread(self.podman.prepare)
        answer = await self.podman.run("info", "--format", "{{.Store.GraphDriverName}}")
        self._able = answer.returncode == 0
        return "" if self._able else f"PodmanFails: {answer.stderr.strip()[-500:]}"

    async def recover(self) -> None:
        """Ends and removes what a killed controller left in this folder. Once, before the first build."""
        if self.podman.installed():
            await asyncio.to_thread(self.podman.prepare)
            await recovery.recover(self.podman)

    async def operators_base(self, architecture: str) -> Base:
        """A base that no user chose, in this machine's storage: that of a target profile. Raises BuildFailed."""
        bench = self._bench
        fitting = [profile for profile in bench.profiles.values() if profile.architecture == architecture]
        # Those of accelerators are large.
        profile = min(fitting, key=lambda each: each.accelerator is not None, default=None)
        if profile is None:
            raise BuildFailed("BuilderUnusable", f"no target profile is of the machine's architecture, {architecture}")
        return await bench.bases.resolve(profile.base, profile, self.podman.temporary, lambda *_: None)

    async def close(self) -> None:
        """Takes away mounts and run time files, when no build runs. Images stay; builds may follow."""
        await asyncio.to_thread(recovery.close, self.podman)

    async def build(
        self, job: TargetJob, on_line: OnLine, on_state: OnState, machine: Machine | None = None
    ) -> BuildResult:
        """Builds and pushes, on another machine where one is given. Raises BuildFailed, which leaves nothing behind.

        A cancel ends it at any moment: then no process, container, mount or file of it is left.
        """
        machine = machine or self.machine
        try:
            async with self._open(job, machine) as opened:
                return await opened.run(on_line, on_state)
        except BuildFailed as failure:
            # Where Podman has broken meanwhile nothing is known of the request.
            if machine is self.machine and not failure.retryable and (wrong := await self.probe()):
                raise BuildFailed("PodmanUnavailable", wrong, retryable=True) from failure
            raise

    @contextlib.asynccontextmanager
    async def context(self, job: TargetJob) -> AsyncIterator[Path]:
        """The folder of the job's whole build context, as this machine would build it, while the block lasts. Raises
        BuildFailed."""
        async with self._open(job, self.machine) as opened:
            yield await opened.context(lambda *_: None)

    @contextlib.asynccontextmanager
    async def _open(self, job: TargetJob, machine: Machine) -> AsyncIterator[ImageBuild]:
        """A build with a folder of its own, which is gone afterwards. Raises BuildFailed."""
        try:
            with waiting_for_room("build the image"):
                if not self._able and (wrong := await self.probe()):
                    raise BuildFailed("PodmanUnavailable", wrong, retryable=True)
                async with tidied(machine), _scratch(self.podman.temporary) as folder:
                    yield ImageBuild(self._bench, machine, job, folder)
        except FileNotFoundError as error:
            self._able = False
            raise BuildFailed("PodmanUnavailable", f"{error}; install the package podman", retryable=True) from error


@contextlib.asynccontextmanager
async def _scratch(parent: Path) -> AsyncIterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=parent))
    try:
        yield folder
    finally:
        await despite_cancel(asyncio.to_thread(shutil.rmtree, folder, True))


@contextlib.asynccontextmanager
async def tidied(machine: Machine) -> AsyncIterator[None]:
    """A build, or a part of one: afterwards nothing unwanted is on the machine, once no other build runs there."""
    await machine.leavings.begin()
    try:
        yield
    finally:
        await despite_cancel(_end(machine))


async def _end(machine: Machine) -> None:
    with contextlib.suppress(HostLost):
        await machine.leavings.end(machine.podman, machine.remove_leftovers)
