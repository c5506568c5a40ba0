"""Target profiles: the kinds of devices that images are built for, one YAML file each in `templates/targets/`."""

import functools
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from controller.spec.model import CDI_KIND, IMAGE, INDEX_URL, NAME


class Accelerator(BaseModel):
    """How a device's accelerator comes into a container, by the Container Device Interface."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # CDI vendor and class: "nvidia.com/gpu".
    kind: Annotated[str, Field(pattern=CDI_KIND)]
    # CDI devices that a workload gets: "nvidia.com/gpu=all".
    devices: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class TargetProfile(BaseModel):
    """One kind of device. `platform` as in OCI image indexes; `base` is used where a spec names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    platform: Literal["linux/amd64", "linux/arm64", "linux/arm/v7"]
    base: Annotated[str, Field(pattern=IMAGE)]
    # Base distribution to base image: what `build.distribution` may name.
    bases: dict[Annotated[str, Field(pattern=NAME)], Annotated[str, Field(pattern=IMAGE)]] = {}
    description: str
    # What a user should know before relying on it, such as what was checked without the hardware.
    notes: str = ""
    # Version of the base's Python, "3.11", and the platform for which `uv --python-platform` resolves wheels there;
    # empty where wheels cannot be fetched without running the target's own Python.
    python: Annotated[str, Field(pattern=r"^(3\.[0-9]{1,2})?$")] = ""
    wheels: str = ""
    # Package indexes asked besides the default one.
    pypi_indexes: tuple[Annotated[str, Field(pattern=INDEX_URL)], ...] = ()
    # Kinds of runtimes that may run there.
    engines: tuple[Annotated[str, Field(pattern=NAME)], ...] = ("python",)
    accelerator: Accelerator | None = None
    environment: dict[str, str] = {}
    artifacts: tuple[Literal["image", "bundle"], ...] = ("image", "bundle")

    @property
    def architecture(self) -> str:
        """As Go and OCI spell it: amd64, arm64, arm."""
        return self.platform.split("/")[1]


@functools.cache
def load_profiles() -> Mapping[str, TargetProfile]:
    """All profiles by name. Raises ValueError where a file is wrong or misnamed."""
    profiles: dict[str, TargetProfile] = {}
    folder = files("templates") / "targets"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".yaml"):
            continue
        profile = TargetProfile.model_validate(yaml.safe_load(entry.read_text(encoding="utf-8")))
        if entry.name != f"{profile.name}.yaml":
            raise ValueError(f"templates/targets/{entry.name}: name is {profile.name}, expected the file's name")
        profiles[profile.name] = profile
    return MappingProxyType(profiles)
