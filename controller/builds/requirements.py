"""All packages that a job asks for: those of its spec, and those that its runtime brings. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.builds.model import BuildFailed, TargetJob
from controller.builds.targets import TargetProfile
from controller.spec.model import BuildSpec, Packages
from controller.spec.runtimes import RuntimeKind, load_runtimes

# Where the name of a requirement ends: extras, versions.
NAME_END = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Requirements:
    """By package manager, each name once, the spec's before the runtime's. Where both name a package, the spec's
    version counts."""

    apt: tuple[str, ...] = ()
    dnf: tuple[str, ...] = ()
    apk: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    # Asked before the default index, in this order.
    pypi_indexes: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    conda_channels: tuple[str, ...] = ()


def requirements_of(job: TargetJob, profile: TargetProfile) -> Requirements:
    """What the job's artifact for this profile is made of."""
    own = job.spec.packages
    runtime = Packages() if provided(job, profile) else runtime_packages(runtime_of(job), profile)
    conda = [part.conda for part in (own, runtime) if part.conda]
    return Requirements(
        # The runtime names its system packages as Debian does; a base of another kind has them by other names.
        apt=_merged(own.apt, () if own.dnf or own.apk else runtime.apt),
        dnf=_merged(own.dnf, runtime.dnf if own.dnf else ()),
        apk=_merged(own.apk, runtime.apk if own.apk else ()),
        pypi=_merged(own.pypi, runtime.pypi),
        pypi_indexes=tuple(dict.fromkeys((*own.pypi_indexes, *runtime.pypi_indexes, *profile.pypi_indexes))),
        conda=_merged(*(part.packages for part in conda)),
        conda_channels=tuple(dict.fromkeys(channel for part in conda for channel in part.channels)),
    )


def runtime_of(job: TargetJob) -> RuntimeKind | None:
    """The runtime that the spec names; None without one, or for one that is not known any more."""
    return load_runtimes().get(job.spec.runtime.kind) if job.spec.runtime else None


def base_of(spec: BuildSpec, profile: TargetProfile) -> str:
    """Name of the base image that a spec means on devices of this profile. Raises BuildFailed."""
    if spec.base or spec.distribution is None:
        return spec.base or profile.base
    if spec.distribution not in profile.bases:
        there = ", ".join(sorted(profile.bases)) or "none"
        message = f"{profile.name} has no base of {spec.distribution}; there are: {there}; correct build.distribution"
        raise BuildFailed("BaseNotFound", message)
    return profile.bases[spec.distribution]


def provided(job: TargetJob, profile: TargetProfile) -> bool:
    """Whether the base has the runtime already. Raises BuildFailed."""
    runtime = job.spec.runtime
    return runtime is not None and runtime.kind in profile.provides and base_of(job.spec, profile) == profile.base


def runtime_packages(runtime: RuntimeKind | None, profile: TargetProfile) -> Packages:
    """What the runtime brings on devices of this profile."""
    if runtime is None:
        return Packages()
    kind = profile.accelerator.kind if profile.accelerator else ""
    return runtime.accelerated.get(kind, runtime.packages)


def _merged(*lists: Sequence[str]) -> tuple[str, ...]:
    """Each requirement once; a later list gives only packages that no earlier one names."""
    found: list[str] = []
    named: set[str] = set()
    for requirements in lists:
        new = [one for one in dict.fromkeys(requirements) if _name(one) not in named]
        named.update(_names(new))
        found += new
    return tuple(found)


def _names(requirements: Iterable[str]) -> Iterable[str]:
    return map(_name, requirements)


def _name(requirement: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", NAME_END.split(requirement, maxsplit=1)[0]).lower()


def environment_of(job: TargetJob, profile: TargetProfile) -> dict[str, str]:
    """The variables of the artifact, of whichever kind; what the spec says goes before all else."""
    runtime = runtime_of(job)
    accelerator = profile.accelerator.environment if profile.accelerator else {}
    return {**profile.environment, **accelerator, **(runtime.environment if runtime else {}), **job.spec.environment}
