"""Taking what is damaged out of a store, and leaving there all that is sound.

Podman can only remove an image with all of its layers, which would have to be fetched again, sound or not; and it may
refuse to, where the image is damaged.
"""

import json
import shutil
from collections.abc import Set
from pathlib import Path

from edge_agent.podman.storage.examine import Damage
from edge_agent.podman.storage.links import links_to
from edge_agent.podman.storage.locks import held
from edge_agent.podman.storage.store import INDEXES, Layer, Store, chain, read_index
from edge_agent.runtime.files import write_durably

MOUNTS = Path("/proc/self/mountinfo")


class Untouchable(Exception):
    """What is damaged is in use, or belongs to others; the text names them."""


def take_out(store: Store, damage: Damage, images: Set[str], containers: Set[str]) -> None:
    """Afterwards the image and its damaged layer are gone, with what was built upon that layer: nothing else.

    All of that is to be among these `images` and `containers`, which do not run; else raises Untouchable, and nothing
    was changed. Raises StoreBusy.
    """
    with held(store):
        layers = store.layers()
        doomed = {layer for layer in layers if damage.layer and damage.layer in chain(layers, layer)}
        lost = {image.id for image in store.images().values() if image.top in doomed} | {damage.image}
        _refuse_foreign(store, doomed, lost, images, containers)
        _refuse_mounted(store, doomed)
        _forget(store, "images", lost)
        _forget(store, "layers", doomed)
        for image in lost:
            shutil.rmtree(store.image_folder(image), ignore_errors=True)
        for layer in doomed:
            _delete(store, layers[layer])


def _refuse_foreign(store: Store, doomed: Set[str], lost: Set[str], images: Set[str], containers: Set[str]) -> None:
    found = store.images()
    names = [name for image in sorted(lost - images) if image in found for name in found[image].names or (image[:12],)]
    for container in store.containers().values():
        if container.layer in doomed and container.id not in containers:
            names += container.names or (container.id[:12],)
    if names:
        raise Untouchable(", ".join(names))


def _refuse_mounted(store: Store, doomed: Set[str]) -> None:
    mounted = [line.split()[4] for line in MOUNTS.read_text().splitlines()]
    for layer in doomed:
        inside = f"{store.folder(layer)}/"
        if any(place.startswith(inside) for place in mounted):
            raise Untouchable(f"what is mounted at {store.folder(layer)}")


def _forget(store: Store, index: str, ids: Set[str]) -> None:
    for path in (store.root / name for name in INDEXES[index]):
        entries = read_index(path)
        if entries and any(entry["id"] in ids for entry in entries):
            kept = [entry for entry in entries if entry["id"] not in ids]
            write_durably(path, json.dumps(kept, separators=(",", ":")).encode(), 0o600)


def _delete(store: Store, layer: Layer) -> None:
    # Podman 4.3 mends no link of any layer while one leads nowhere.
    for link in links_to(store, layer.id):
        link.unlink(missing_ok=True)
    store.recipe(layer.id).unlink(missing_ok=True)
    shutil.rmtree(store.folder(layer.id), ignore_errors=True)
