"""Builds one target of one request as a bundle: resolve, fetch, pack, push; known from then on by digest."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.builds import host
from controller.builds.blobs import Blob
from controller.builds.bundles.description import describe, labels, manifest
from controller.builds.bundles.lock import LockedWheel
from controller.builds.bundles.materials import bundle_materials
from controller.builds.bundles.packing import RUNTIME, TITLE, WHEEL_TYPE, Entry, application_entries, pack
from controller.builds.bundles.pushing import push_bundle
from controller.builds.bundles.resolve import SourceOnly, resolve
from controller.builds.bundles.sources import Made, WheelSmith
from controller.builds.bundles.wheels import WheelStore
from controller.builds.cancelling import despite_cancel, in_thread
from controller.builds.context import check_paths
from controller.builds.full_disk import waiting_for_room
from controller.builds.host_settings import HostSettings
from controller.builds.layers import file_layers
from controller.builds.log import BuildLog
from controller.builds.materials import attach, send_materials
from controller.builds.model import (
    ArtifactKind,
    BuildFailed,
    BuildResult,
    BuildState,
    BuiltArtifact,
    OnLine,
    OnState,
    RegistryAccess,
    TargetJob,
)
from controller.builds.pushed import OnPushed, nobody
from controller.builds.registry import MANIFEST_TYPE, Manifest, digest_of
from controller.builds.registry_session import RegistrySession
from controller.builds.reproducibility import bundle_notes
from controller.builds.requirements import Requirements, requirements_of, runtime_of
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile, load_profiles
from controller.builds.uploads import UploadStore
from controller.spec.runtimes import runtime_file


class BundleBuilder:
    """Works in `work_dir`, where wheels stay for the next bundles; any number of builds. Podman is not needed."""

    def __init__(
        self,
        work_dir: Path,
        uploads: UploadStore,
        access: RegistryAccess,
        settings: BuilderSettings | None = None,
        profiles: Mapping[str, TargetProfile] | None = None,
        smith: WheelSmith | None = None,
        on_pushed: OnPushed = nobody,
    ) -> None:
        """`smith` makes wheels of packages that have none; without it they fail the build."""
        self._smith = smith
        self._on_pushed = on_pushed
        self._work_dir = work_dir
        self._uploads = uploads
        self._access = access
        self._settings = settings or BuilderSettings()
        self._profiles = load_profiles() if profiles is None else profiles
        self.wheels = WheelStore(work_dir / "wheels")

    async def recover(self) -> None:
        """Removes what a killed controller left in this folder. Once, before the first build."""
        await asyncio.to_thread(shutil.rmtree, self._work_dir / "tmp", True)
        await asyncio.to_thread(self.wheels.recover)

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Builds and pushes. Raises BuildFailed, which leaves nothing behind but wheels.

        A cancel ends it at any moment: then no process or file of it is left.
        """
        temporary = self._work_dir / "tmp"
        with waiting_for_room("pack the bundle"):
            await asyncio.to_thread(temporary.mkdir, parents=True, exist_ok=True, mode=0o700)
            folder = Path(tempfile.mkdtemp(prefix="bundle-", dir=temporary))
            try:
                return await self._build(job, folder, on_line, on_state)
            finally:
                await despite_cancel(asyncio.to_thread(shutil.rmtree, folder, True))

    async def _build(self, job: TargetJob, folder: Path, on_line: OnLine, on_state: OnState) -> BuildResult:
        settings = await host.read(self._settings)
        log = BuildLog(on_line, settings.hidden())
        on_state(BuildState.PREPARING)
        profile = self._profile(job)
        check_paths(job.files)
        requirements = requirements_of(job, profile)
        wheels, made = await self._resolve(job, requirements, profile, folder, settings, log)
        on_state(BuildState.BUILDING)
        fetched = await self.wheels.fetch(wheels, settings, log)
        log("system", f"{len(wheels)} wheels, {fetched} bytes fetched")
        layers = await in_thread(self._layers, job, wheels, folder)
        config, body = manifest(describe(job, profile, requirements, wheels), labels(job), layers)
        materials = await in_thread(bundle_materials, job, wheels, self.wheels)
        notes = _notes(requirements, wheels, made)
        if not job.spec.push:
            return BuildResult(None, notes, materials)
        on_state(BuildState.PUSHING)
        await in_thread(self._on_pushed, job.user_id, job.project_id, job.repository, digest_of(body))
        size = sum(blob.size_bytes for blob in (*layers, config))
        async with RegistrySession(job.repository, self._access, timeout=None, pushes=True) as session:
            await push_bundle(job, [*layers, config], body, session, log)
            sent = await send_materials(session, materials)
            await attach(session, Manifest(digest_of(body), size, body, MANIFEST_TYPE), sent)
        artifact = BuiltArtifact(job.repository, digest_of(body), profile.platform, size, ArtifactKind.BUNDLE)
        return BuildResult(artifact, notes, materials)

    async def _resolve(
        self,
        job: TargetJob,
        requirements: Requirements,
        profile: TargetProfile,
        folder: Path,
        settings: HostSettings,
        log: BuildLog,
    ) -> tuple[tuple[LockedWheel, ...], list[Made]]:
        """One wheel of each package, and those whose wheel was made from source."""
        uv, cache, workshop = self._uv(), self._work_dir / "uv", folder / "made"
        made: list[Made] = []
        while True:
            try:
                found = workshop if made else None
                wheels = await resolve(uv, requirements, profile, folder, cache, settings, log, found)
            except SourceOnly as missing:
                # What was made and does not fit is not made again.
                if self._smith is None or missing.name in [each.name for each in made]:
                    raise
                made.append(await self._smith.make(missing.name, job, profile, workshop, log))
            else:
                await in_thread(self.wheels.take, workshop)
                return wheels, made

    def _profile(self, job: TargetJob) -> TargetProfile:
        profile = self._profiles.get(job.profile)
        if profile is None:
            known = ", ".join(self._profiles)
            raise BuildFailed("UnknownProfile", f"there is no target profile {job.profile!r}; there are: {known}")
        return profile

    def _uv(self) -> Path:
        uv = host.uv_program(self._settings)
        if uv is None:
            raise BuildFailed("UvMissing", "the program uv is not there; install the package uv", retryable=True)
        return uv

    def _layers(self, job: TargetJob, wheels: Sequence[LockedWheel], folder: Path) -> list[Blob]:
        """Wheels, the runtime's files, the user's: what changes most often comes last."""
        layers = [self._wheel_layer(wheel) for wheel in wheels]
        runtime = runtime_of(job)
        if runtime is not None and runtime.files:
            entries = [Entry(f"{RUNTIME}/{name}", runtime_file(runtime.name, name)) for name in runtime.files]
            layers.append(pack(entries, RUNTIME, folder / "runtime.tar.gz"))
        for number, (name, files) in enumerate(file_layers(job.files).items()):
            layers.append(pack(application_entries(files, self._uploads), name, folder / f"files-{number}.tar.gz"))
        return layers

    def _wheel_layer(self, wheel: LockedWheel) -> Blob:
        path = self.wheels.path(wheel)
        return Blob(WHEEL_TYPE, f"sha256:{wheel.sha256}", path.stat().st_size, path, ((TITLE, wheel.file),))


def _notes(requirements: Requirements, wheels: Sequence[LockedWheel], made: Sequence[Made]) -> tuple[str, ...]:
    notes = list(bundle_notes(requirements, [wheel.name for wheel in wheels]))
    for each in made:
        emulated = ", by emulation" if each.emulated else ""
        notes.append(f"not repeatable: the wheel of {each.name} was made from source in a container{emulated}")
    if requirements.apt:
        notes.append(f"the device has to have these Debian packages: {', '.join(requirements.apt)}")
    return tuple(notes)
