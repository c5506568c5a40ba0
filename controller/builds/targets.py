"""Target profiles: the kinds of devices that images are built for, one YAML file each in `templates/targets/`."""

import functools
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from controller.spec.model import IMAGE, NAME


class TargetProfile(BaseModel):
    """One kind of device. `platform` as in OCI image indexes; `base` is used where a spec names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    platform: Literal["linux/amd64", "linux/arm64"]
    base: Annotated[str, Field(pattern=IMAGE)]
    description: str
    # What a user should know before relying on it, such as what was checked without the hardware.
    notes: str = ""

    @property
    def architecture(self) -> str:
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
