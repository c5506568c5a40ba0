"""What the registry says of a version of a project volume. Its form is told in docs/design/volumes.md."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.blobs import Part, part_of

ARTIFACT_TYPE = "application/vnd.longshore.volume.v1+json"
FILE_TYPE = "application/vnd.longshore.volume.file.v1"
GROUP_TYPE = "application/vnd.longshore.volume.files.v1.tar+gzip"
EXECUTABLE = "dev.longshore.executable"
SCHEMA = 1


@dataclass(frozen=True)
class LargeFile:
    """A file that is a blob as it is; the part's title is its path."""

    part: Part
    executable: bool


@dataclass(frozen=True)
class VolumeManifest:
    """`groups` are archives of smaller files."""

    config: Part
    large: tuple[LargeFile, ...]
    groups: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.config, *(file.part for file in self.large), *self.groups)


def parse_volume(reference: str, content: bytes) -> VolumeManifest:
    """Raises BackendError, final, for what is no volume that this agent understands."""
    try:
        document = json.loads(content)
        if document.get("artifactType") != ARTIFACT_TYPE:
            raise ValueError(f"it is no volume, but {document.get('artifactType') or 'an image'}")
        layers = [(layer["mediaType"], part_of(layer), layer.get("annotations") or {}) for layer in document["layers"]]
        if strange := {kind for kind, _, _ in layers} - {FILE_TYPE, GROUP_TYPE}:
            raise ValueError(f"it has layers of a kind that this agent does not know: {', '.join(sorted(strange))}")
        large = [_large(part, marks) for kind, part, marks in layers if kind == FILE_TYPE]
        groups = [part for kind, part, _ in layers if kind == GROUP_TYPE]
        return VolumeManifest(part_of(document["config"]), tuple(large), tuple(groups))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(reference, error) from error


def unpacked_bytes(reference: str, config: bytes) -> int:
    """Of all files together. Raises BackendError, final."""
    try:
        document = json.loads(config)
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, and this agent knows {SCHEMA}; upgrade the agent")
        return int(document["bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise _invalid(reference, error) from error


def _large(part: Part, marks: Mapping[str, Any]) -> LargeFile:
    path = PurePosixPath(part.title)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{part.title!r} is no path in a volume")
    return LargeFile(part, marks.get(EXECUTABLE) == "true")


def _invalid(reference: str, error: Exception) -> BackendError:
    why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return BackendError("InvalidVolume", f"cannot use {reference}: {why}", retryable=False)
