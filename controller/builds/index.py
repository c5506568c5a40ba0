"""The document that joins the images of one build. Pure.

OCI image index: https://github.com/opencontainers/image-spec/blob/main/image-index.md
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controller.builds.registry import INDEX_TYPE, Manifest

PROFILE = "dev.longshore.profile"


@dataclass(frozen=True)
class Member:
    """One image: its manifest as it lies in the registry, its platform, and the profile that it was built for."""

    manifest: Manifest
    platform: str
    profile: str


def image_index(members: Sequence[Member], annotations: dict[str, str]) -> bytes:
    """The same for the same members in the same order. Images of one platform are told apart by their profile."""
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [_descriptor(member) for member in members],
        "annotations": dict(sorted(annotations.items())),
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _descriptor(member: Member) -> dict[str, Any]:
    return {
        "mediaType": member.manifest.media_type,
        "digest": member.manifest.digest,
        "size": len(member.manifest.body),
        "platform": _platform(member.platform),
        "annotations": {PROFILE: member.profile},
    }


def _platform(text: str) -> dict[str, str]:
    """ "linux/arm/v7" as OCI writes it."""
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))
