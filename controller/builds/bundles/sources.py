"""Wheels of packages that have none: made from source in a container of the target's base, by emulation if need be."""

import hashlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from controller.builds.builder import ImageBuilder
from controller.builds.cancelling import despite_cancel, in_thread
from controller.builds.image_build import kept_as
from controller.builds.log import BuildLog
from controller.builds.materials_image import CannotRead, image_root
from controller.builds.model import ArtifactKind, BuildFailed, TargetJob
from controller.builds.targets import TargetProfile
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec, Packages

# Where the step leaves the wheel in its image.
PLACE = "/opt/longshore/wheels"
# The first moment that a zip archive can name: the same source gives the same wheel, where its build keeps to this.
EPOCH = 315_532_800
STEP = "make a wheel from source"


class WheelSmith:
    """Makes wheels with the image builder of this machine, whose layers keep them as long as those of the build."""

    def __init__(self, builder: ImageBuilder) -> None:
        self._builder = builder

    async def make(self, name: str, job: TargetJob, profile: TargetProfile, folder: Path, log: BuildLog) -> None:
        """Afterwards a wheel of the package is in `folder`. What the source needs is to be had from the base, from
        `packages.apt` of the spec and from the package index. Raises BuildFailed."""
        requirement = _requirement(name, job.spec.packages.pypi)
        log("system", f"{requirement} has no wheel for {profile.platform}; it is made from source in a container")
        made = _job(requirement, job)
        leavings, machine = self._builder.machine.leavings, self._builder.machine
        # Until the wheel is out, nothing may be tidied up there.
        await leavings.begin()
        try:
            await self._builder.build(made, log, lambda _: None)
            async with image_root(self._builder.podman, kept_as(made)) as root:
                await in_thread(_take, root, folder)
        except BuildFailed as failure:
            raise _failure(failure, requirement) from failure
        except CannotRead as error:
            raise BuildFailed(
                "MaterialsUnreadable", f"cannot read the wheel of {requirement}: {error}", step=STEP, retryable=True
            ) from error
        finally:
            await despite_cancel(leavings.end(machine.podman, machine.remove_leftovers))


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


def _take(root: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for wheel in sorted((root / PLACE.lstrip("/")).glob("*.whl")):
        # The source's own code made it: what is a link there must not lead to a file of this machine.
        if wheel.is_file() and not wheel.is_symlink():
            shutil.copyfile(wheel, folder / wheel.name)


def _failure(failure: BuildFailed, requirement: str) -> BuildFailed:
    if failure.reason != "StepFailed":
        return failure
    return BuildFailed(
        "SourceOnly",
        f"{requirement} has no wheel that fits, and none could be made from source: see the last lines; add what it "
        "needs to build.packages.apt, or pin a version that has a wheel",
        step=STEP,
        last_lines=failure.last_lines,
    )
