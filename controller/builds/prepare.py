"""What an image needs and no CPU of the target has to make: laid out natively in the build context.

Environments of conda are, for every image (`prepared/conda.tar`). Of an image for another architecture than its
builder's, steps run by emulation, many times slower. What is made here instead is added as archives too: accounts and
folders (`prepared/root.tar`), system packages (`prepared/apt.tar`), the virtual environment (`prepared/pypi.tar`).
docs/design/foreign-builds.md has the measurements.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from controller.builds.bases import Base
from controller.builds.cancelling import in_thread
from controller.builds.conda.kept import Laid
from controller.builds.host_settings import HostSettings
from controller.builds.log import BuildLog
from controller.builds.model import TargetJob
from controller.builds.podman import Podman
from controller.builds.prepare_apt import Unpacked, unpack
from controller.builds.prepare_base import BaseFiles, read_base
from controller.builds.prepare_conda import CondaTool, lay_out_conda
from controller.builds.prepare_root import needs_removal, write_root
from controller.builds.prepare_wheels import WheelsTool, lay_out
from controller.builds.requirements import requirements_of
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile


@dataclass(frozen=True)
class Prepared:
    """What lies ready in the context, and is added to the image instead of being made by a step.

    `root`: accounts and folders, in `prepared/root.tar`. `pypi`: the virtual environment, in `prepared/pypi.tar`.
    `apt`: the packages' files, in `prepared/apt.tar`; `apt_configure`: their maintainer scripts have to run.
    `conda_scripts`: name, version and build number of conda packages whose own scripts have to run.
    `emulated`: what has to run on the target's CPU all the same, for people. `notes`: for people, such as where
    emulation is used and why.
    """

    root: bool = False
    pypi: bool = False
    apt: bool = False
    apt_configure: bool = False
    conda_scripts: tuple[str, ...] = ()
    emulated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workplace:
    """What preparing works with. `podman` has the base in its storage; `architecture` is of the machine that will run
    the steps, as Go spells it; `scratch` is an empty folder that the caller removes."""

    podman: Podman
    settings: BuilderSettings
    host: HostSettings
    base: Base
    architecture: str
    scratch: Path


async def prepare(job: TargetJob, profile: TargetProfile, context: Path, log: BuildLog, place: Workplace) -> Prepared:
    """Of an image for the machine's own architecture, where installing is as fast, only what is prepared in any case.
    Raises BuildFailed."""
    preparation = _Preparation(job, profile, context, log, place)
    return await (preparation.own() if place.architecture == profile.architecture else preparation.foreign())


class _Preparation:
    """One target's. Each part says whether it lies ready, or else why it has to be made by a step."""

    def __init__(self, job: TargetJob, profile: TargetProfile, context: Path, log: BuildLog, place: Workplace) -> None:
        self._job = job
        self._profile = profile
        self._log = log
        self._place = place
        self._folder = context / "prepared"
        self._needs = requirements_of(job, profile)
        self._emulated: list[str] = []
        self._notes: list[str] = []

    async def own(self) -> Prepared:
        """For the architecture of the machine that runs the steps."""
        if not self._needs.conda:
            return Prepared()
        await in_thread(self._make_folders)
        conda = await self._conda_packages(await self._base())
        await in_thread(self._settle)
        return Prepared(conda_scripts=conda.scripts, notes=conda.notes)

    async def foreign(self) -> Prepared:
        """For another architecture."""
        await in_thread(self._make_folders)
        base = await self._base()
        apt = await self._system_packages(base)
        root = await self._root(base)
        conda = await self._conda_packages(base)
        pypi = await self._python_packages(base.plus(apt.entries or {}))
        self._name_other_steps()
        self._notes.append(
            f"laid out by a builder of another architecture: one of {self._profile.platform} makes the same files by "
            "steps, with another digest"
        )
        if self._emulated:
            self._notes.insert(0, f"emulated for {self._profile.platform}: {'; '.join(self._emulated)}")
            self._log("system", self._notes[0])
        await in_thread(self._settle)
        return Prepared(
            root=root, pypi=pypi, apt=apt.entries is not None, apt_configure=bool(apt.scripts),
            conda_scripts=conda.scripts, emulated=tuple(self._emulated), notes=tuple(self._notes),
        )  # fmt: skip

    async def _base(self) -> BaseFiles:
        return await read_base(self._place.podman, self._place.base.image_id, self._scratch("base"))

    async def _conda_packages(self, base: BaseFiles) -> Laid:
        if not self._needs.conda:
            return Laid()
        place, job = self._place, self._job
        tool = CondaTool(place.podman, place.settings, place.host, self._profile, job.user_id, job.no_cache)
        target, scratch = self._folder / "conda.tar", self._scratch("conda")
        laid = await lay_out_conda(tool, base, self._needs, target, scratch, self._log)
        self._notes += laid.notes
        if laid.scripts:
            named = ", ".join(line.partition(" ")[0] for line in laid.scripts)
            self._emulated.append(f"scripts of the conda packages {named}")
        return laid

    async def _root(self, base: BaseFiles) -> bool:
        if needs_removal(base, self._job):
            self._emulated.append("removing sudo from the base, which only build.allow_root lets stay")
            return False
        await in_thread(write_root, base, self._job, self._folder / "root.tar")
        return True

    async def _system_packages(self, base: BaseFiles) -> Unpacked:
        if not self._needs.apt:
            return Unpacked()
        place, target = self._place, self._folder / "apt.tar"
        done = await unpack(
            self._needs.apt, base, self._profile, place.host, place.podman, self._scratch("apt"), target, self._log
        )
        if done.reason:
            self._emulated.append(f"all apt packages, since {done.reason}")
        if done.scripts:
            self._emulated.append(f"scripts of the apt packages {', '.join(done.scripts)}")
        return done

    async def _python_packages(self, base: BaseFiles) -> bool:
        if not self._needs.pypi:
            return False
        reason = "they are added to the environment of conda, by its own Python"
        if not self._needs.conda:
            tool = WheelsTool(self._place.podman, self._place.settings, self._place.host, self._profile)
            target = self._folder / "pypi.tar"
            reason, notes = await lay_out(tool, base, self._needs, target, self._scratch("wheels"), self._log)
            self._notes += notes
        if reason:
            self._emulated.append(f"all Python packages, since {reason}")
        return not reason

    def _name_other_steps(self) -> None:
        """Steps that nothing is prepared for."""
        needs, spec = self._needs, self._job.spec
        for kind, names in (("dnf", needs.dnf), ("apk", needs.apk)):
            if names:
                self._emulated.append(f"packages of {kind}")
        if spec.allow_root:
            self._emulated.append("installing sudo, for build.allow_root")
        if spec.steps:
            self._emulated.append(
                f"{len(spec.steps)} of build.steps" if len(spec.steps) > 1 else "the step of build.steps"
            )

    def _make_folders(self) -> None:
        self._folder.mkdir(parents=True)
        for name in ("base", "wheels", "apt", "conda"):
            self._scratch(name).mkdir(parents=True)

    def _scratch(self, name: str) -> Path:
        return self._place.scratch / name

    def _settle(self) -> None:
        """Podman's layer cache looks at times, and at modes."""
        for path in self._folder.iterdir():
            path.chmod(0o644)
            os.utime(path, (0, 0))
        self._folder.chmod(0o755)
        os.utime(self._folder, (0, 0))
