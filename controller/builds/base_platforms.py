"""For which platforms an image is, and which of them a target takes.

Platforms as the OCI image specification spells them:
https://github.com/opencontainers/image-spec/blob/main/image-index.md
"""

import json
from dataclasses import dataclass

from controller.builds.model import RegistryAccess
from controller.builds.registry import get_manifest
from controller.builds.registry_session import RegistryUnreachable
from controller.spec.image_names import split_name

# Variants whose programs run on every machine of the platform. Images of before variants name none.
TAKEN = {"linux/amd64": {"", "v1"}, "linux/arm64": {"", "v8"}, "linux/arm/v7": {"", "v5", "v6", "v7"}}


@dataclass(frozen=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part) or "no platform"

    def serves(self, wanted: str) -> bool:
        """Whether a target of this platform ("linux/arm/v7") runs its programs."""
        os, architecture = wanted.split("/")[:2]
        return (self.os, self.architecture) == (os, architecture) and self.variant in TAKEN[wanted]


async def offered(name: str, access: RegistryAccess) -> tuple[Platform, ...]:
    """The platforms of an image of several; () where it is none, or where the registry does not say."""
    try:
        found = await get_manifest(*split_name(name), access)
        members = [] if found is None else json.loads(found.body).get("manifests", [])
        told = [Platform(*(str(one["platform"].get(key, "")) for key in Platform.__match_args__)) for one in members]
    except (RegistryUnreachable, ValueError, KeyError, TypeError, AttributeError):
        # What a registry answers is anybody's; Podman has said already that the wanted one is not there.
        return ()
    # Documents about the images stand among them as platform "unknown".
    return tuple(dict.fromkeys(one for one in told if one.os != "unknown"))
