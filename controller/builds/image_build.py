"""The way of one target from its request to an image in the registry."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.builds import host, registry
from controller.builds.annotations import annotation_options
from controller.builds.bases import Base, BaseResolver, require_allowed
from controller.builds.blobs import Blob
from controller.builds.cancelling import aside, in_thread, is_stop
from controller.builds.context import make_context
from controller.builds.emulation import check_needed, own_architecture
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.machine import Machine
from controller.builds.materials import attach, image_materials, send_materials
from controller.builds.model import (
    BuildFailed,
    BuildResult,
    BuildState,
    BuiltArtifact,
    OnLine,
    OnState,
    RegistryAccess,
    TargetJob,
)
from controller.builds.outcome import build_failure
from controller.builds.podman import Podman
from controller.builds.prepare import Prepared, Workplace, prepare
from controller.builds.pushed import OnPushed, nobody
from controller.builds.registry_session import RegistrySession
from controller.builds.reproducibility import image_notes
from controller.builds.requirements import base_of, requirements_of
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile
from controller.builds.uploads import UploadStore

BUILD_OPTIONS = (
    "--force-rm", "--layers", "--timestamp", "0", "--http-proxy=false", "--pull=never",
)  # fmt: skip

BASE_DIGEST = "org.opencontainers.image.base.digest"


@dataclass(frozen=True)
class Workbench:
    """What all builds of one builder work with."""

    settings: BuilderSettings
    profiles: Mapping[str, TargetProfile]
    uploads: UploadStore
    access: RegistryAccess
    bases: BaseResolver
    # This machine's own, which has the bases.
    podman: Podman
    on_pushed: OnPushed = nobody


class ImageBuild:
    """One build of one target on one machine; `folder` is its own, and the caller removes it."""

    def __init__(self, bench: Workbench, machine: Machine, job: TargetJob, folder: Path) -> None:
        self._bench = bench
        self._machine = machine
        self._job = job
        self._folder = folder

    async def run(self, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Raises BuildFailed. What is unwanted then is noted in the machine's leavings."""
        job, machine = self._job, self._machine
        settings = await host.read(self._bench.settings)
        log = BuildLog(on_line, (*settings.hidden(), *job.secrets.values()))
        on_state(BuildState.PREPARING)
        profile = self._profile()
        base, prepared = await self._make_context(profile, settings, log)
        await check_needed(machine, profile, prepared.emulated)
        await machine.have_base(base, log)
        on_state(BuildState.BUILDING)
        image = await self._make_image(profile, base, settings, log)
        about = image_notes(requirements_of(job, profile), base.name, base.digest, job.spec.steps)
        with self._unwanted_unless_tried_again(log):
            artifact, materials = await self._deliver(profile, image, on_state, log)
        return BuildResult(artifact, (*prepared.notes, *about), materials)

    @contextlib.contextmanager
    def _unwanted_unless_tried_again(self, log: BuildLog) -> Iterator[None]:
        """What may be tried again finds the layers of the image; what may not, or is not wished any more, leaves
        none."""
        try:
            yield
        except BaseException as error:
            if not (is_stop(error) or (isinstance(error, BuildFailed) and error.retryable)):
                self._machine.leavings.unwanted([*log.made_images(), kept_as(self._job)])
            raise

    async def _deliver(
        self, profile: TargetProfile, image: str, on_state: OnState, log: BuildLog
    ) -> tuple[BuiltArtifact | None, bytes]:
        """The image in the registry, where it is to be pushed, and its bill of materials."""
        job = self._job
        async with aside(image_materials(self._machine.podman, image, job, log)) as reading:
            if not job.spec.push:
                return None, await reading
            on_state(BuildState.PUSHING)
            # One session for all: further connections and tokens cost more bytes than questions. A push may take long.
            async with (
                RegistrySession(job.repository, self._bench.access, timeout=None, pushes=True) as session,
                aside(_send_materials(session, reading)) as sending,
            ):
                digest = await self._push(image, log)
                manifest = await self._pushed(session, digest, log)
                await attach(session, manifest, await sending)
            return BuiltArtifact(job.repository, digest, profile.platform, manifest.size_bytes), await reading

    async def context(self, on_line: OnLine) -> Path:
        """The folder of the whole build context, with nothing built yet. Raises BuildFailed."""
        settings = await host.read(self._bench.settings)
        await self._make_context(self._profile(), settings, BuildLog(on_line, settings.hidden()))
        return self._folder / "context"

    async def _make_context(
        self, profile: TargetProfile, settings: HostSettings, log: BuildLog
    ) -> tuple[Base, Prepared]:
        job, bench = self._job, self._bench
        name = base_of(job.spec, profile)
        require_allowed(name, job)
        base = await bench.bases.resolve(name, profile, self._folder, log)
        scratch, context = self._folder / "prepare", self._folder / "context"
        await in_thread(scratch.mkdir)
        place = Workplace(bench.podman, bench.settings, settings, base, self._machine.architecture, scratch)
        prepared = await prepare(job, profile, context, log, place)
        await in_thread(make_context, context, job, profile, base.name, prepared, bench.uploads, base.digest)
        return base, prepared

    def _profile(self) -> TargetProfile:
        profile = self._bench.profiles.get(self._job.profile)
        if profile is None:
            known = ", ".join(self._bench.profiles)
            raise BuildFailed("UnknownProfile", f"there is no target profile {self._job.profile!r}; there are: {known}")
        return profile

    async def _make_image(self, profile: TargetProfile, base: Base, settings: HostSettings, log: BuildLog) -> str:
        """Returns the id of the image."""
        arguments = await in_thread(self._arguments, profile, base, settings)
        leavings = self._machine.leavings
        try:
            status = await self._machine.build(arguments, base, self._folder / "scratch", log)
        except BaseException:
            leavings.killed()
            leavings.unwanted(log.made_images())
            raise
        if status < 0:
            leavings.killed()
        iid_file = self._folder / "iid"
        if status != 0 or not iid_file.exists():
            leavings.unwanted(log.made_images())
            raise build_failure(log.recent(), status, profile.platform)
        return (await asyncio.to_thread(iid_file.read_text)).strip().removeprefix("sha256:")

    def _arguments(self, profile: TargetProfile, base: Base, settings: HostSettings) -> list[str]:
        """Writes what the command reads, and returns its arguments."""
        programs = self._programs(profile)
        steps = settings if self._job.own_steps else settings.for_steps()
        secrets = host.write_secrets(self._folder / "secrets", settings, steps, programs, self._job.secrets)
        context = self._folder / "context"
        # Without it every storage calls a base that was sent to it by another digest, and the same inputs give
        # another image.
        standing_on = ("--annotation", f"{BASE_DIGEST}={base.kept_digest}") if base.kept_digest else ()
        return [
            *standing_on, *BUILD_OPTIONS, "--network", self._bench.settings.network,
            *annotation_options(self._job, base), "--platform", profile.platform,
            "--from", base.image_id, *(("--no-cache",) if self._job.no_cache else ()),
            "--iidfile", str(self._folder / "iid"),
            *(part for name, path in secrets.items() for part in ("--secret", f"id={name},src={path}")),
            "--tag", kept_as(self._job), "--file", str(context / "Containerfile"), str(context),
        ]  # fmt: skip

    def _programs(self, profile: TargetProfile) -> dict[str, Path]:
        """This machine's programs that steps may use, where they run there."""
        if not profile.architecture == own_architecture() == self._machine.architecture:
            return {}
        return host.programs(self._bench.settings)

    @property
    def _tag(self) -> str:
        return self._job.tag or self._job.build_id

    async def _push(self, image: str, log: BuildLog) -> str:
        """The image's digest in the registry."""
        tag = self._tag
        target = f"{self._job.repository}:{tag}"
        log("system", f"pushing {target}")
        # The digest is known afterwards only, and a cancel or the end of this process may come before.
        await self._tell(tag)
        if self._job.again:
            await self._tell_of_earlier_try(tag)
        digest = await self._machine.push(image, target, self._folder, self._bench.access, log)
        await self._tell(digest)
        return digest

    async def _pushed(self, session: RegistrySession, digest: str, log: BuildLog) -> registry.Manifest:
        """What the registry holds."""
        repository = self._job.repository
        try:
            manifest = await registry.checked_manifest(session, digest)
        except registry.RegistryUnreachable as error:
            raise BuildFailed(
                "RegistryUnreachable", f"pushed {repository}:{self._tag}, but it is not there: {error}", retryable=True
            ) from error
        log("system", f"pushed {repository}@{digest}, {manifest.size_bytes} bytes")
        return manifest

    async def _tell(self, reference: str) -> None:
        job = self._job
        await in_thread(self._bench.on_pushed, job.user_id, job.project_id, job.repository, reference)

    async def _tell_of_earlier_try(self, tag: str) -> None:
        """What lies there loses its name now."""
        # A registry that is away is what the push finds too.
        with contextlib.suppress(registry.RegistryUnreachable):
            if earlier := await registry.get_manifest(self._job.repository, tag, self._bench.access):
                await self._tell(earlier.digest)


async def _send_materials(session: RegistrySession, reading: asyncio.Task[bytes]) -> Blob:
    # Who waits no longer for what is read does not end the reading.
    return await send_materials(session, await asyncio.shield(reading))


def kept_as(job: TargetJob) -> str:
    """The name of the image in the builder's storage, where it stays as a cache of layers."""
    return f"localhost/longshore/build/{job.profile}:{job.build_id}"
