"""What a power cut leaves of an image that Podman fetches, made by hand: the next fetch goes on upon all of it that is
whole."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.runtime.backend import ArtifactDamaged
from edge_agent.runtime.model import Artifact, Workload
from tests.contract.machine import await_lines, ignore
from tests.integration.podman_fixtures import machine, site
from tests.support.damaged_store import (
    DamagedStore,
    begun,
    empty,
    little_fetched,
    nameless,
    remove,
    switched_off,
    unwrite,
)
from tests.support.podman_machine import PodmanMachine, PodmanSite

__all__ = ["machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-cut-fetches"),
    pytest.mark.asyncio(loop_scope="module"),
]
# Of the layer below the topmost one, which is small.
LARGE = 8_000_000
SEES_ALL = "test -s /noise-below && test -s /noise && echo whole || echo lacking; exec sleep 1000"

# What a fetch leaves that is cut off: layers upon each other, the topmost first.
LEFT: dict[str, Callable[[DamagedStore, Artifact], list[Path]]] = {
    "layers of no image": begun,
    "an image without a name": nameless,
}
UNNAMED: dict[str, Callable[[DamagedStore, list[Path]], None]] = {
    "their links are empty": lambda _, layers: empty(*links(layers)),
    "what lies below one is empty": lambda _, layers: empty(layers[0] / "lower"),
    "both are empty": lambda _, layers: empty(layers[0] / "lower", *links(layers)),
    "nobody knows their names": lambda store, layers: lose_names(store, layers),
}


def links(layers: list[Path]) -> list[Path]:
    return [layer / "link" for layer in layers]


def lose_names(store: DamagedStore, layers: list[Path]) -> None:
    """As after Podman 4.3 has deleted one that was not complete, of which the link was empty too."""
    empty(*links(layers))
    remove(store.root / "overlay/l")


@asynccontextmanager
async def fetch_cut_off(machine: PodmanMachine, workload: Workload) -> AsyncIterator[DamagedStore]:
    """Within the block the device is off after a whole fetch, of which the test takes what a cut one would lack. Nobody
    knows whether what is there was written out."""
    await machine.backend.prepare(workload, ignore)
    async with switched_off(machine) as store:
        (machine.site.folder / machine.owner / "sound-layers.json").unlink()
        yield store


async def whole(machine: PodmanMachine, workload: Workload) -> bool:
    """Whether all layers of the image are what a container sees."""
    handle = await machine.backend.start(workload)
    return await await_lines(machine.backend, handle, 1) == ["whole"]


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("damage", UNNAMED)
async def test_a_fetch_goes_on_upon_layers_that_a_power_cut_left_without_their_names(
    site: PodmanSite, machine: PodmanMachine, damage: str, left: str
) -> None:
    workload = site.workload(await site.image(below_bytes=LARGE, extra_bytes=1000), SEES_ALL)
    async with fetch_cut_off(machine, workload) as store:
        UNNAMED[damage](store, LEFT[left](store, workload.artifact))
    async with little_fetched(site.device):
        await machine.backend.prepare(workload, ignore)
    assert await whole(machine, workload)


@pytest.mark.parametrize("left", LEFT)
async def test_a_layer_that_a_power_cut_left_without_its_files_is_told_and_fetched_again(
    site: PodmanSite, machine: PodmanMachine, left: str
) -> None:
    workload = site.workload(await site.image(below_bytes=LARGE, extra_bytes=1000), SEES_ALL)
    async with fetch_cut_off(machine, workload) as store:
        layers = LEFT[left](store, workload.artifact)
        empty(layers[0] / "lower", *links(layers), layers[-1] / "diff" / "noise-below")
    with pytest.raises(ArtifactDamaged, match=f"noise-below has 0 bytes instead of {LARGE}"):
        await machine.backend.prepare(workload, ignore)
    await machine.backend.prepare(workload, ignore)
    assert await whole(machine, workload)


async def test_an_image_that_a_power_cut_left_without_a_name_and_a_manifest_is_told_and_fetched_upon_its_layers(
    site: PodmanSite, machine: PodmanMachine
) -> None:
    workload = site.workload(await site.image(below_bytes=LARGE, extra_bytes=1000), SEES_ALL)
    async with fetch_cut_off(machine, workload) as store:
        unwrite(store, workload.artifact, "manifest")
        nameless(store, workload.artifact)
    async with little_fetched(site.device):
        with pytest.raises(ArtifactDamaged, match="manifest is lacking or damaged"):
            await machine.backend.prepare(workload, ignore)
        await machine.backend.prepare(workload, ignore)
    assert await whole(machine, workload)
