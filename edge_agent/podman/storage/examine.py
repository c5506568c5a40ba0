"""Which of the images are damaged, and where: fast by what must be there, or by reading everything."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_agent.podman.storage.store import Image, Layer, Store, chain
from edge_agent.podman.storage.tar_split import Damaged, Unverifiable, verify


@dataclass(frozen=True)
class Damage:
    """Of an image. `layer` is the one that has to be fetched again with all above it; empty where none has."""

    image: str
    what: str
    layer: str = ""


def structure(store: Store, image: Image, layers: Mapping[str, Layer]) -> Damage | None:
    """What is lacking of an image, by its manifests, its configuration and its layers' folders; reads no layer."""
    ids = chain(layers, image.top)
    for layer in reversed(ids):
        if layer not in layers:
            return Damage(image.id, f"layer {layer[:12]} is not in the index")
        if not store.content(layer).is_dir():
            return Damage(image.id, f"layer {layer[:12]} has no files", layer)
    broken = next(_broken_files(store, image), "")
    return Damage(image.id, f"{broken} is lacking or damaged") if broken else None


def _broken_files(store: Store, image: Image) -> Iterator[str]:
    for name, digest in image.files.items():
        try:
            content = store.image_file(image.id, name).read_bytes()
        except FileNotFoundError:
            yield name
        else:
            if digest.startswith("sha256:") and hashlib.sha256(content).hexdigest() != digest.partition(":")[2]:
                yield name
    # Podman notes an image before its manifests and its configuration, and asks for these by these names.
    yield from (name for name in ("manifest", f"sha256:{image.id}") if name not in image.files)


def content(
    store: Store, image: Image, layers: Mapping[str, Layer], only: frozenset[str] | None = None
) -> Damage | None:
    """What is damaged of an image, found by reading its layers (or `only` those), the lowest first. Blocks."""
    for layer in reversed(chain(layers, image.top)):
        if layer in layers and (only is None or layer in only):
            try:
                verify(store.recipe(layer), store.content(layer), layers[layer].digest)
            except Damaged as error:
                return Damage(image.id, f"layer {layer[:12]}: {error}", layer)
            except Unverifiable:
                continue
    return None
