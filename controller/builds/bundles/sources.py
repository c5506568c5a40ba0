"""Wheels of packages that have none: made from source in a container of the target's base, by emulation if need be."""

import hashlib
import shlex
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from controller.builds.builder import ImageBuilder, tidied
from controller.builds.cancelling import in_thread
from controller.builds.image_build import kept_as
from controller.builds.log import BuildLog
from controller.builds.machine import Machine
from controller.builds.materials_image import CannotRead, image_root
from controller.builds.model import ArtifactKind, BuildFailed, OnLine, TargetJob
from controller.builds.targets import TargetProfile
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec, Packages

# Where the step leaves the wheel in its image.
PLACE = "/opt/longshore/wheels"
# The first moment that a zip archive can name: the same source gives the same wheel, where its build keeps to this.
EPOCH = 315_532_800
STEP = "make a wheel from source"


@dataclass(frozen=True)
class Made:
    """A package whose wheel was made from source."""

    name: str
    emulated: bool


Work = Callable[[Machine], Awaitable[None]]
# Does work on a machine that runs the programs of the profile's platform, and again on another one where that is lost.
# Raises BuildFailed where there is none.
OnMachine = Callable[[TargetProfile, OnLine, Work], Awaitable[None]]


class WheelSmith:
    """Makes wheels with the image builder, on a machine that `on_machine` chooses, whose layers keep them as long as
    those of the build; on this machine where it is not given."""

    def __init__(self, builder: ImageBuilder, on_machine: OnMachine | None = None) -> None:
        self._builder = builder
        self._on_machine = on_machine or self._on_own

    async def make(self, name: str, job: TargetJob, profile: TargetProfile, folder: Path, log: BuildLog) -> Made:
        """Afterwards a wheel of the package is in `folder`. What the source needs is to be had from the base, from
        `packages.apt` of the spec and from the package index. Raises BuildFailed."""
        requirement = _requirement(name, job.spec.packages.pypi)
        log("system", f"{requirement} has no wheel for {profile.platform}; it is made from source in a container")
        emulated = False

        async def work(machine: Machine) -> None:
            nonlocal emulated
            emulated = machine.architecture != profile.architecture
            await self._make_on(machine, _job(requirement, job), folder, log)

        try:
            await self._on_machine(profile, log, work)
        except BuildFailed as failure:
            raise _failure(failure, requirement) from failure
        except CannotRead as error:
            raise BuildFailed(
                "MaterialsUnreadable", f"cannot read the wheel of {requirement}: {error}", step=STEP, retryable=True
            ) from error
        return Made(name, emulated)

    async def _make_on(self, machine: Machine, job: TargetJob, folder: Path, log: BuildLog) -> None:
        # Until the wheel is out, nothing may be tidied up there.
        async with tidied(machine):
            await self._builder.build(job, log, lambda _: None, machine)
            async with image_root(machine.podman, kept_as(job)) as root:
                await in_thread(take, root, folder)

    async def _on_own(self, profile: TargetProfile, on_line: OnLine, work: Work) -> None:
        await work(self._builder.machine)


def _job(requirement: str, job: TargetJob) -> TargetJob:
    packages = job.spec.packages
    wheel = f"/tmp/pip/bin/pip wheel --no-cache-dir --no-deps --wheel-dir {PLACE} {shlex.quote(requirement)}"
    extra = "".join(f" --extra-index-url {shlex.quote(index)}" for index in packages.pypi_indexes)
    step = (
        f"set -eu; export SOURCE_DATE_EPOCH={EPOCH}; mkdir -p {PLACE}; python3 -m venv /tmp/pip; "
        f"{wheel}{extra}; rm -rf /tmp/pip"
    )
    spec = BuildSpec(
        distribution=job.spec.distribution, packages=Packages(apt=packages.apt), steps=[step], push=False,
        allow_root=job.spec.allow_root,
    )  # fmt: skip
    # A part of the build for housekeeping, and of a length that the tag of an image may have.
    part = f"{job.build_id}.{hashlib.sha256(requirement.encode()).hexdigest()[:16]}"
    return replace(
        job, build_id=part, spec=spec, deploy=DeploySpec(), files=(), kind=ArtifactKind.IMAGE, own_steps=True
    )


def _requirement(name: str, requirements: Sequence[str]) -> str:
    """As the spec has it, which may say a version; else the name."""
    for requirement in requirements:
        if canonicalize_name(Requirement(requirement).name) == canonicalize_name(name):
            return requirement
    return name


def take(root: Path, folder: Path) -> None:
    """Copies the wheels of the image whose root this is."""
    folder.mkdir(exist_ok=True)
    place = root / PLACE.lstrip("/")
    # The source's own code made it: what is a link there must not lead to a file of this machine.
    if not place.resolve().is_relative_to(root.resolve()):
        return
    for wheel in sorted(place.glob("*.whl")):
        if wheel.is_file() and not wheel.is_symlink():
            shutil.copyfile(wheel, folder / wheel.name)


def _failure(failure: BuildFailed, requirement: str) -> BuildFailed:
    if failure.reason != "StepFailed":
        message = f"a wheel of {requirement} has to be made from source: {failure.message}"
        lines, again = failure.last_lines, failure.retryable
        return BuildFailed(failure.reason, message, step=failure.step, last_lines=lines, retryable=again)
    return BuildFailed(
        "SourceOnly",
        f"{requirement} has no wheel that fits, and none could be made from source: see the last lines; add what it "
        "needs to build.packages.apt, or pin a version that has a wheel",
        step=STEP,
        last_lines=failure.last_lines,
    )
