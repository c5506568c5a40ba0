"""Builds one target of one request: base, Containerfile, `podman build`, push; known from then on by digest."""

import asyncio
import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from controller.builds import host, recovery, registry
from controller.builds.bases import Base, BaseResolver, require_allowed
from controller.builds.bootstrap import Bootstrapper
from controller.builds.cancelling import despite_cancel, in_thread
from controller.builds.context import write_context
from controller.builds.credentials import RegistryFiles
from controller.builds.emulation import check_runnable, own_architecture
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.materials import attach, image_materials
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
from controller.builds.outcome import build_failure, push_failure
from controller.builds.plan import plan_image
from controller.builds.podman import Podman
from controller.builds.prepare import Prepared, prepare
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile, load_profiles
from controller.builds.uploads import UploadStore
from controller.rendering import CannotQuote, render


class ImageBuilder:
    """Builds in a Podman storage of its own below `work_dir`; one ImageBuilder per folder, any number of builds."""

    def __init__(
        self, work_dir: Path, uploads: UploadStore, access: RegistryAccess, settings: BuilderSettings | None = None
    ) -> None:
        self._settings = settings or BuilderSettings()
        self._uploads = uploads
        self._access = access
        self.podman = Podman(work_dir, self._settings.storage_driver)
        cache = self._settings.base_cache or work_dir / "bases"
        self._bases = BaseResolver(
            self.podman,
            Bootstrapper(self.podman, cache, self._settings.bootstrap_mirror),
            access,
            self._settings.registry_timeout,
            self._settings.unreachable_memory,
        )
        self._able = False
        self._running = 0
        # Images of steps of failed builds, and whether a build had to be killed: removed when no build runs, since
        # another build may stand on such an image between two of its steps.
        self._unwanted: list[str] = []
        self._untidy = False
        self._tidying = asyncio.Lock()

    def takes(self, profile: str, kind: ArtifactKind) -> bool:
        """Any number of images at a time; no bundles."""
        return kind is ArtifactKind.IMAGE

    def on_free(self, listener: Callable[[], None]) -> None:
        """Nobody ever waits for it."""

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

    async def close(self) -> None:
        """Takes away mounts and run time files, when no build runs. Images stay; builds may follow."""
        await asyncio.to_thread(recovery.close, self.podman)

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        """Builds and pushes. Raises BuildFailed, which leaves nothing behind.

        A cancel ends it at any moment: then no process, container, mount or file of it is left.
        """
        if not self._able and (wrong := await self.probe()):
            raise BuildFailed("PodmanUnavailable", wrong, retryable=True)
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=self.podman.temporary))
        self._running += 1
        try:
            return await self._build(job, folder, on_line, on_state)
        except FileNotFoundError as error:
            self._able = False
            raise BuildFailed("PodmanUnavailable", f"{error}; install the package podman", retryable=True) from error
        finally:
            self._running -= 1
            await despite_cancel(self._tidy(folder))

    async def _build(self, job: TargetJob, folder: Path, on_line: OnLine, on_state: OnState) -> BuildResult:
        host_settings = await host.read(self._settings)
        log = BuildLog(on_line, host_settings.hidden())
        on_state(BuildState.PREPARING)
        profile = _profile(job)
        await asyncio.to_thread(check_runnable, profile)
        name = job.spec.base or profile.base
        require_allowed(name, job)
        base = await self._bases.resolve(name, profile, folder, log)
        prepared = await prepare(job, profile, folder / "context", log)
        await in_thread(self._write_context, job, profile, base, prepared, folder)
        on_state(BuildState.BUILDING)
        image = await self._run_build(job, profile, base, host_settings, folder, log)
        materials = await image_materials(self.podman, image, job, log)
        if not job.spec.push:
            return BuildResult(None, prepared.notes, materials)
        on_state(BuildState.PUSHING)
        artifact = await self._push(job, profile, image, folder, log)
        await attach(artifact, materials, self._access)
        return BuildResult(artifact, prepared.notes, materials)

    def _write_context(
        self, job: TargetJob, profile: TargetProfile, base: Base, prepared: Prepared, folder: Path
    ) -> None:
        try:
            containerfile = render(plan_image(job, profile, base.name, prepared))
        except CannotQuote as error:
            raise BuildFailed("InvalidSpec", f"the image cannot be described: {error}") from error
        try:
            write_context(folder / "context", containerfile, job.files, self._uploads)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "DiskFull" if full else "BadPath"
            raise BuildFailed(reason, f"cannot write the build context: {error}", retryable=full) from error

    async def _run_build(
        self, job: TargetJob, profile: TargetProfile, base: Base, settings: HostSettings, folder: Path, log: BuildLog
    ) -> str:
        """Returns the id of the image."""
        iid_file = folder / "iid"
        secrets = await in_thread(host.write_secrets, folder / "secrets", settings, self._uv(profile))
        arguments = [
            *BUILD_OPTIONS, "--platform", profile.platform, "--from", base.image_id, "--iidfile", str(iid_file),
            *(part for name, path in secrets.items() for part in ("--secret", f"id={name},src={path}")),
            "--tag", kept_as(job), "--file", str(folder / "context/Containerfile"), str(folder / "context"),
        ]  # fmt: skip
        scratch = folder / "scratch"
        await in_thread(scratch.mkdir)
        try:
            status = await self.podman.build(arguments, scratch, log)
        except BaseException:
            self._untidy = True
            self._unwanted += log.made_images()
            raise
        if status != 0 or not iid_file.exists():
            self._unwanted += log.made_images()
            raise build_failure(log.recent(), status, profile.platform)
        return iid_file.read_text().strip().removeprefix("sha256:")

    async def _push(
        self, job: TargetJob, profile: TargetProfile, image: str, folder: Path, log: BuildLog
    ) -> BuiltArtifact:
        digest_file = folder / "digest"
        target = f"{job.repository}:{job.build_id}"
        log("system", f"pushing {target}")
        options = await RegistryFiles(folder, self._access).options()
        pushed = await self.podman.run(
            "push",
            "--digestfile",
            str(digest_file),
            *options,
            image,
            f"docker://{target}",
            temporary=folder / "scratch",
        )
        if pushed.returncode != 0:
            failure = push_failure(pushed.stderr, job.repository)
            if not failure.retryable:
                # What may be tried again finds its layers; what may not leaves none.
                self._unwanted += [*log.made_images(), kept_as(job)]
            raise failure
        digest = digest_file.read_text().strip()
        try:
            manifest = await registry.read_manifest(job.repository, digest, self._access)
        except registry.RegistryUnreachable as error:
            raise BuildFailed(
                "RegistryUnreachable", f"pushed {target}, but it is not there: {error}", retryable=True
            ) from error
        log("system", f"pushed {job.repository}@{digest}, {manifest.size_bytes} bytes")
        return BuiltArtifact(job.repository, digest, profile.platform, manifest.size_bytes)

    async def _tidy(self, folder: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, folder, True)
        async with self._tidying:
            if self._running:
                return
            if self._untidy:
                self._untidy = False
                await recovery.remove_leftovers(self.podman)
            unwanted, self._unwanted = self._unwanted, []
            for image in reversed(unwanted):
                # Refused for an image that another one stands on, which is as it should be.
                await self.podman.run("rmi", "--no-prune", image)

    def _uv(self, profile: TargetProfile) -> Path | None:
        return host.uv_program(self._settings) if profile.architecture == own_architecture() else None


BUILD_OPTIONS = (
    "--force-rm", "--layers", "--timestamp", "0", "--network", "host", "--http-proxy=false", "--pull=never",
)  # fmt: skip


def kept_as(job: TargetJob) -> str:
    """The name of the image in the builder's storage, where it stays as a cache of layers."""
    return f"localhost/longshore/build/{job.profile}:{job.build_id}"


def _profile(job: TargetJob) -> TargetProfile:
    profile = load_profiles().get(job.profile)
    if profile is None:
        known = ", ".join(load_profiles())
        raise BuildFailed("UnknownProfile", f"there is no target profile {job.profile!r}; there are: {known}")
    return profile
