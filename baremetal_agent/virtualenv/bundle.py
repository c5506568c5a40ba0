"""What a bundle consists of: its manifest and its description, as docs/design/bundles.md defines them. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.blobs import Part, part_of

ARTIFACT_TYPE = "application/vnd.longshore.bundle.v1+json"
WHEEL_TYPE = "application/vnd.longshore.bundle.wheel.v1+zip"
FILES_TYPE = "application/vnd.longshore.bundle.files.v1.tar+gzip"
SCHEMA = 1
# The folder of a release that is the virtual environment; all others come from layers of files.
ENVIRONMENT = "environment"
WHEEL_NAME = re.compile(r"[A-Za-z0-9_.+!-]+\.whl")


@dataclass(frozen=True)
class Manifest:
    config: Part
    layers: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.config, *self.layers)

    @property
    def wheels(self) -> tuple[Part, ...]:
        return tuple(layer for layer in self.layers if layer.media_type == WHEEL_TYPE)

    @property
    def files(self) -> tuple[Part, ...]:
        """In the order in which they are unpacked: a later one wins."""
        return tuple(layer for layer in self.layers if layer.media_type == FILES_TYPE)


@dataclass(frozen=True)
class Description:
    """`python` is empty where its version does not matter; `places` are absolute paths, and the folder of the release
    that stands at each."""

    platform: str
    python: str
    lock: str
    apt: tuple[str, ...]
    entrypoint: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    workdir: str
    places: tuple[tuple[str, str], ...]


def parse_manifest(reference: str, content: bytes) -> Manifest:
    """Raises BackendError, final, for what is no bundle that this agent understands."""
    try:
        document = json.loads(content)
        if document.get("artifactType") != ARTIFACT_TYPE:
            raise ValueError(f"it is no bundle, but {document.get('artifactType') or 'an image'}")
        manifest = Manifest(_part(document["config"]), tuple(_part(layer) for layer in document["layers"]))
        strange = {layer.media_type for layer in manifest.layers} - {WHEEL_TYPE, FILES_TYPE}
        if strange:
            raise ValueError(f"it has layers of a kind that this agent does not know: {', '.join(sorted(strange))}")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(reference, error) from error


def parse_description(reference: str, content: bytes) -> Description:
    """Raises BackendError, final, for what this agent does not understand."""
    try:
        document = json.loads(content)
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, and this agent knows {SCHEMA}; upgrade the agent")
        return _description(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(reference, error) from error


def _description(document: Mapping[str, Any]) -> Description:
    return Description(
        platform=str(document["platform"]),
        python=str(document["python"]),
        lock=str(document["lock"]),
        apt=tuple(str(name) for name in document["packages"].get("apt", ())),
        entrypoint=tuple(str(word) for word in document["entrypoint"]),
        environment=tuple((str(name), str(value)) for name, value in document["environment"].items()),
        workdir=_absolute(document["workdir"]),
        places=tuple((_absolute(place), _folder(name)) for place, name in document["places"].items()),
    )


def _part(descriptor: Mapping[str, Any]) -> Part:
    part = part_of(descriptor)
    if part.media_type == WHEEL_TYPE and not WHEEL_NAME.fullmatch(part.title):
        raise ValueError(f"{part.title!r} is no name of a wheel")
    return part


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or PurePosixPath(path) == PurePosixPath("/"):
        raise ValueError(f"{path} is no absolute path of a folder")
    return str(PurePosixPath(path))


def _folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is no folder of a bundle")
    return name


def _invalid(reference: str, error: Exception) -> BackendError:
    why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return BackendError("InvalidBundle", f"cannot use {reference}: {why}", retryable=False)
