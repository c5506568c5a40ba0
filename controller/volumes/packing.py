"""A volume's files as an OCI artifact: docs/design/volumes.md is the manual of its form."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from controller.builds.blobs import Blob, blob_of
from controller.builds.bundles.packing import TITLE, Entry, pack
from controller.builds.model import ContextFile
from controller.builds.referrers import artifact_manifest, canonical

ARTIFACT_TYPE = "application/vnd.longshore.volume.v1+json"
CONFIG_TYPE = "application/vnd.longshore.volume.config.v1+json"
FILE_TYPE = "application/vnd.longshore.volume.file.v1"
GROUP_TYPE = "application/vnd.longshore.volume.files.v1.tar+gzip"
EXECUTABLE = "dev.longshore.executable"
SCHEMA = 1
# A file of this size and more is a layer as it is; smaller ones are packed together.
LARGE_BYTES = 2**20
# A change of one small file moves one of so many groups.
GROUPS = 16


@dataclass(frozen=True)
class Stored:
    """A file of the volume, and where its content lies."""

    file: ContextFile
    location: Path

    @property
    def large(self) -> bool:
        return self.file.size_bytes >= LARGE_BYTES


@dataclass(frozen=True)
class Packed:
    """Layers and configuration, and the manifest that names them."""

    blobs: tuple[Blob, ...]
    manifest: bytes


def groups(paths: Sequence[str]) -> Mapping[int, tuple[str, ...]]:
    """Which small files share a layer. By their names alone, so that a new one moves no other."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(paths):
        found[hashlib.sha256(path.encode()).digest()[0] % GROUPS].append(path)
    return {number: tuple(found[number]) for number in sorted(found)}


def pack_volume(files: Sequence[Stored], folder: Path) -> Packed:
    """Writes the layers of small files into `folder`. The same files give the same bytes in any order. Blocks. Raises
    OSError."""
    large = sorted((each for each in files if each.large), key=lambda each: each.file.path)
    small = {each.file.path: each for each in files if not each.large}
    layers = [_as_it_is(each) for each in large]
    for number, paths in groups(list(small)).items():
        entries = [Entry(path, small[path].location, small[path].file.executable) for path in paths]
        blob = pack(entries, f"group-{number:02}", folder / f"group-{number:02}.tar.gz")
        layers.append(replace(blob, media_type=GROUP_TYPE))
    described = {"schema": SCHEMA, "bytes": sum(each.file.size_bytes for each in files), "files": len(files)}
    config = blob_of(CONFIG_TYPE, canonical(described))
    return Packed((*layers, config), artifact_manifest(ARTIFACT_TYPE, config, layers))


def _as_it_is(stored: Stored) -> Blob:
    file = stored.file
    marks = ((EXECUTABLE, "true"),) if file.executable else ()
    return Blob(FILE_TYPE, file.digest, file.size_bytes, stored.location, ((TITLE, file.path), *marks))
