"""Target profiles: the kinds of devices that images are built for, one YAML file each in `templates/targets/`."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.spec.definitions import InvalidDefinition, read_definitions
from controller.spec.fields import CDI_KIND, ENV_NAME, INDEX_URL, NAME, Text
from controller.spec.image_names import ImageName
from controller.spec.messages import nearest
from controller.spec.model import BuildSpec
from controller.spec.runtimes import load_runtimes

# A CDI device: vendor/class=name. https://github.com/cncf-tags/container-device-interface
CDI_DEVICE = CDI_KIND.removesuffix("$") + "=[A-Za-z0-9]([A-Za-z0-9_.:-]{0,62}[A-Za-z0-9])?$"
Environment = dict[Annotated[str, Field(pattern=ENV_NAME)], Text]


class Accelerator(BaseModel):
    """How a device's accelerator comes into a container, by the Container Device Interface."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # CDI vendor and class: "nvidia.com/gpu".
    kind: Annotated[str, Field(pattern=CDI_KIND)]
    # CDI devices that a workload gets: "nvidia.com/gpu=all".
    devices: tuple[Annotated[str, Field(pattern=CDI_DEVICE)], ...] = ()
    # Set in every image that is built for the profile, where the spec does not set it.
    environment: Environment = {}


class TargetProfile(BaseModel):
    """One kind of device. `platform` as in OCI image indexes; `base` is used where a spec names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    platform: Literal["linux/amd64", "linux/arm64", "linux/arm/v7"]
    base: ImageName
    # Base distribution to base image: what `build.distribution` may name.
    bases: dict[Annotated[str, Field(pattern=NAME)], ImageName] = {}
    description: Annotated[str, Field(min_length=1)]
    # What a user should know before relying on it, such as what was checked without the hardware.
    notes: str = ""
    # Version of the base's Python, "3.11", and the platform for which `uv --python-platform` resolves wheels there;
    # empty where wheels cannot be fetched without running the target's own Python.
    python: Annotated[str, Field(pattern=r"^(3\.[0-9]{1,2})?$")] = ""
    wheels: Annotated[str, Field(pattern=r"^([a-z0-9_]+-[a-z0-9_-]+)?$")] = ""
    # Package indexes asked besides the default one.
    pypi_indexes: tuple[Annotated[str, Field(pattern=INDEX_URL)], ...] = ()
    # Kinds of runtimes that may run there, and those of them that `base` brings along: nothing is installed for these.
    engines: tuple[Annotated[str, Field(pattern=NAME)], ...] = ("python",)
    provides: tuple[Annotated[str, Field(pattern=NAME)], ...] = ()
    accelerator: Accelerator | None = None
    # Set in every image that is built for the profile, where the spec does not set it.
    environment: Environment = {}
    artifacts: Annotated[tuple[Literal["image", "bundle"], ...], Field(min_length=1)] = ("image", "bundle")

    @property
    def architecture(self) -> str:
        """As Go and OCI spell it: amd64, arm64, arm."""
        return self.platform.split("/")[1]


_extra_folder: Path | None = None


def use_folder(folder: Path | None) -> None:
    """From now on load_profiles() has the profiles in `folder` too, in this whole process: what accepts a spec, what
    builds and what places have to agree. Raises InvalidDefinition, and then changes nothing."""
    global _extra_folder
    load_profiles(folder)
    _extra_folder = folder


def load_profiles(folder: Path | None = None) -> Mapping[str, TargetProfile]:
    """All profiles by name: the shipped ones, and those in `folder` (where none is given, that of `use_folder`), which
    add to them or override them.

    Raises InvalidDefinition, an OperatorError that names file, field and what is allowed.
    """
    return _load(folder or _extra_folder, tuple(load_runtimes()))


def wanted_devices(profile: TargetProfile | None, build: BuildSpec) -> tuple[str, ...]:
    """CDI devices that a workload gets on a device of this profile: those of its accelerator, where the runtime is one
    for it or the spec asks for a number of them. A device without the CDI file still runs all others."""
    if profile is None or profile.accelerator is None:
        return ()
    kind = profile.accelerator.kind
    runtime = load_runtimes().get(build.runtime.kind) if build.runtime else None
    used = runtime is not None and (kind in runtime.accelerated or runtime.name in profile.provides)
    return profile.accelerator.devices if used or kind in build.minimum.accelerators else ()


@functools.cache
def _load(folder: Path | None, runtimes: tuple[str, ...]) -> Mapping[str, TargetProfile]:
    profiles = read_definitions(TargetProfile, "targets", folder)
    problems = [problem for profile in profiles.values() for problem in _unknown_engines(profile, runtimes)]
    if problems:
        raise InvalidDefinition("\n".join(problems))
    return profiles


def _unknown_engines(profile: TargetProfile, runtimes: Sequence[str]) -> list[str]:
    where = f"{profile.name}.yaml: engines"
    return [
        f"{where}: there is no runtime '{name}'{nearest(name, runtimes)}; known: {', '.join(runtimes)}"
        for name in (*profile.engines, *profile.provides)
        if name not in runtimes
    ]
