"""The indexes of an overlay store: which layers, images and containers there are, and where their files lie.

Format: github.com/containers/storage, `layers.go`, `images.go`, `containers.go`; the same in Podman 4 and 5.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Index -> its file below the store. Layers and containers that need not outlive a boot have a file of their own.
INDEXES = {
    "layers": ("overlay-layers/layers.json", "overlay-layers/volatile-layers.json"),
    "images": ("overlay-images/images.json",),
    "containers": ("overlay-containers/containers.json", "overlay-containers/volatile-containers.json"),
}
PLAIN_NAME = re.compile(r"[.0-9a-z]+")


@dataclass(frozen=True)
class Layer:
    """`digest` is that of its content as a tar archive; empty for a container's own layer. `mark` tells one life of
    a layer from the next, which has the same id."""

    id: str
    parent: str
    digest: str
    mark: str


@dataclass(frozen=True)
class Image:
    """`names` end with the digest in the registry; there may be none yet. `files` has the digest of each of its
    manifests and configurations, by name; empty where it was not recorded."""

    id: str
    names: tuple[str, ...]
    top: str
    files: Mapping[str, str]

    def called(self, digest: str) -> bool:
        """Podman gives an image its name at last. One without, as a fetch leaves it that was cut off, is found by its
        manifest; Podman does so too."""
        if not self.names:
            return f"manifest-{digest}" in self.files
        return any(name.endswith(f"@{digest}") for name in self.names)


@dataclass(frozen=True)
class StoredContainer:
    id: str
    names: tuple[str, ...]
    layer: str


class Store:
    """The store at `root`. An index that is not there or makes no sense is read as an empty one, as Podman does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def exists(self) -> bool:
        return (self.root / "overlay-layers").is_dir()

    def layers(self) -> dict[str, Layer]:
        return {entry["id"]: _layer(entry) for entry in self._all("layers")}

    def images(self) -> dict[str, Image]:
        return {entry["id"]: _image(entry) for entry in self._all("images")}

    def containers(self) -> dict[str, StoredContainer]:
        return {entry["id"]: _container(entry) for entry in self._all("containers")}

    def index(self, name: str) -> Path:
        return self.root / INDEXES[name][0]

    def folder(self, layer: str) -> Path:
        return self.root / "overlay" / layer

    def content(self, layer: str) -> Path:
        return self.folder(layer) / "diff"

    def recipe(self, layer: str) -> Path:
        """Out of which, and of its files, a layer's archive can be put together again."""
        return self.root / "overlay-layers" / f"{layer}.tar-split.gz"

    def image_folder(self, image: str) -> Path:
        return self.root / "overlay-images" / image

    def image_file(self, image: str, name: str) -> Path:
        """A manifest or configuration."""
        plain = PLAIN_NAME.fullmatch(name)
        return self.image_folder(image) / (name if plain else "=" + base64.b64encode(name.encode()).decode())

    def _all(self, name: str) -> Iterator[Mapping[str, Any]]:
        for path in INDEXES[name]:
            yield from read_index(self.root / path) or ()


def read_index(path: Path) -> list[dict[str, Any]] | None:
    """Its entries; None where the file is not there, or was cut off."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(found, list) and all(isinstance(entry, dict) and entry.get("id") for entry in found)
    return found if whole else None


def chain(layers: Mapping[str, Layer], top: str) -> list[str]:
    """Ids from the top to the lowest; the last one is lacking in `layers` where the chain is broken."""
    found: list[str] = []
    while top and top not in found:
        found.append(top)
        top = layers[top].parent if top in layers else ""
    return found


def _layer(entry: Mapping[str, Any]) -> Layer:
    mark = str(entry.get("created") or "")
    return Layer(str(entry["id"]), str(entry.get("parent") or ""), str(entry.get("diff-digest") or ""), mark)


def _image(entry: Mapping[str, Any]) -> Image:
    digests = entry.get("big-data-digests") or {}
    files = {str(name): str(digests.get(name) or "") for name in entry.get("big-data-names") or ()}
    return Image(str(entry["id"]), tuple(entry.get("names") or ()), str(entry.get("layer") or ""), files)


def _container(entry: Mapping[str, Any]) -> StoredContainer:
    return StoredContainer(str(entry["id"]), tuple(entry.get("names") or ()), str(entry.get("layer") or ""))
