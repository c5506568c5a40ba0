"""Podman's storage on a device that is switched off, to be damaged as power cuts and bad flash do."""

import base64
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact
from tests.support.devices import SimulatedDevice
from tests.support.podman_machine import PodmanMachine

INDEXES = {"layers": "overlay-layers/layers.json", "images": "overlay-images/images.json"}
INDEXES["containers"] = "overlay-containers/containers.json"
# More than a token, a manifest and what else is asked beside layers; less than a layer with a
# program.
LITTLE = 100_000
NOTED_OF_FILES = ("big-data-sizes", "big-data-digests")


class DamagedStore:
    """What lies where in the overlay storage of a device, as its indexes tell while they are whole."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.root = device.storage / "storage"

    def index(self, name: str) -> Path:
        """Of layers, images or containers."""
        return self.root / INDEXES[name]

    def entries(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.index(name).read_text())
        return found

    @property
    def database(self) -> Path:
        """Where Podman keeps its containers."""
        return next(path for path in (self.root / "libpod/bolt_state.db", self.root / "db.sql") if path.exists())

    def image(self, artifact: Artifact) -> dict[str, Any]:
        return next(i for i in self.entries("images") if any(artifact.digest in name for name in i.get("names", ())))

    def image_files(self, artifact: Artifact) -> list[Path]:
        """Its manifests and its configuration."""
        return sorted((self.root / "overlay-images" / self.image(artifact)["id"]).iterdir())

    def image_file(self, artifact: Artifact, name: str) -> Path:
        """One of them."""
        file = name if name == "manifest" else "=" + base64.b64encode(name.encode()).decode()
        return self.root / "overlay-images" / str(self.image(artifact)["id"]) / file

    def configuration(self, artifact: Artifact) -> str:
        """The name of that file."""
        return f"sha256:{self.image(artifact)['id']}"

    def layers(self, artifact: Artifact) -> list[Path]:
        """The folders of an image's layers, the topmost first."""
        return [self.root / "overlay" / layer for layer in self._chain(self.image(artifact)["layer"])]

    def _chain(self, layer: str) -> Iterator[str]:
        parents = {entry["id"]: entry.get("parent", "") for entry in self.entries("layers")}
        while layer:
            yield layer
            layer = parents[layer]

    def writable(self, handle: Handle) -> Path:
        """The folder of a container's own layer."""
        found = next(entry for entry in self.entries("containers") if entry["id"] == handle.value)
        return self.root / "overlay" / str(found["layer"])

    def userdata(self, handle: Handle) -> Path:
        return self.root / "overlay-containers" / handle.value


@asynccontextmanager
async def switched_off(machine: PodmanMachine) -> AsyncIterator[DamagedStore]:
    """Within the block the device is off, as a power cut leaves it; afterwards it and its agent are there again."""
    await machine.site.device.power_cut()
    yield DamagedStore(machine.site.device)
    await machine.site.device.boot()
    await machine.restart_agent()


def empty(*paths: Path) -> None:
    """What is left of a file whose data never reached the disk."""
    for path in paths:
        path.write_bytes(b"")


def unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def cut(path: Path, size: int) -> None:
    """Afterwards the file has so many bytes, zeroes where it had fewer."""
    with path.open("r+b") as file:
        file.truncate(size)


def overwrite(*paths: Path) -> None:
    """Other content of the same size."""
    for path in paths:
        path.write_bytes(b"x" * path.stat().st_size)


def drop(store: DamagedStore, index: str, key: str) -> None:
    """One entry of an index was never written."""
    store.index(index).write_text(json.dumps([entry for entry in store.entries(index) if entry["id"] != key]))


def unwrite(store: DamagedStore, artifact: Artifact, name: str) -> None:
    """A manifest or configuration of an image was never written: it is not there, and the index does not know of it."""
    unlink(store.image_file(artifact, name))
    entries, image = store.entries("images"), store.image(artifact)
    entries[entries.index(image)] = {
        **image,
        "big-data-names": [other for other in image["big-data-names"] if other != name],
        **{key: {other: value for other, value in image[key].items() if other != name} for key in NOTED_OF_FILES},
    }
    store.index("images").write_text(json.dumps(entries))


def begun(store: DamagedStore, artifact: Artifact) -> list[Path]:
    """A fetch was cut off before it came to the topmost layer; the folders of the layers that it left, which are those
    of no image."""
    top, *left = store.layers(artifact)
    drop(store, "images", store.image(artifact)["id"])
    drop(store, "layers", top.name)
    remove(top)
    return left


def nameless(store: DamagedStore, artifact: Artifact) -> list[Path]:
    """A fetch was cut off when only the image's name was lacking; the folders of its layers."""
    entries, image, layers = store.entries("images"), store.image(artifact), store.layers(artifact)
    entries[entries.index(image)] = {key: value for key, value in image.items() if not key.startswith("names")}
    store.index("images").write_text(json.dumps(entries))
    return layers


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


@asynccontextmanager
async def little_fetched(device: SimulatedDevice) -> AsyncIterator[None]:
    """What the block does fetches no more than `LITTLE`."""
    before = await received(device)
    yield
    assert await received(device) - before < LITTLE


async def received(device: SimulatedDevice) -> int:
    """Bytes that came to the device by its network since it was booted."""
    listed = await device.run("cat", "/proc/net/dev")
    lines = [line.split(":") for line in listed.splitlines() if ":" in line and "lo:" not in line]
    return sum(int(counts.split()[0]) for _, counts in lines)
