"""The power fails while an image is fetched: what was there is there still, and what was begun is fetched to its end.
LONGSHORE_POWER_CUTS sets how often `make faults` tries; `make test` does once."""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.podman.storage.store import Store, chain
from edge_agent.podman.storage.tar_split import verify
from edge_agent.runtime.backend import ArtifactDamaged, Phase
from edge_agent.runtime.model import Artifact, Workload
from tests.contract.machine import ignore
from tests.support.cut_disk import cut_disk
from tests.support.devices import SimulatedDevice
from tests.support.podman_machine import REPOSITORY, PodmanMachine, PodmanSite
from tests.support.registry import RegistryUnderTest, running_registry

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio,
    pytest.mark.xdist_group("power-cuts"),
    pytest.mark.timeout(7200),
]
ROUNDS = int(os.environ.get("LONGSHORE_POWER_CUTS", "30"))
POLITE = "echo ready; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
OWNER = "cut-off"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="longshore-cuts-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@asynccontextmanager
async def machine_on(
    disk: Path, registry: RegistryUnderTest | None, folder: Path, numbers: "itertools.count[int]"
) -> AsyncIterator[PodmanMachine]:
    """A device with all that it keeps on this disk; the registry beside it is made where there is none."""
    async with contextlib.AsyncExitStack() as parts:
        device = await parts.enter_async_context(SimulatedDevice(disk / "device"))
        if registry is None:
            (folder / "registry").mkdir()
            registry = await parts.enter_async_context(running_registry(folder / "registry", device.gateway))
            registry.pullable.add(REPOSITORY)
        machine = PodmanMachine(PodmanSite(disk / "agents", device, numbers, registry), OWNER)
        await machine.open()
        yield machine
        await machine.close_agent()


def prove_whole(machine: PodmanMachine, artifact: Artifact) -> None:
    """All files of the image are those that were pushed."""
    store = Store(machine.site.device.storage / "storage")
    layers = store.layers()
    (found,) = (image for image in store.images().values() if image.called(artifact.digest))
    for layer in chain(layers, found.top):
        verify(store.recipe(layer), store.content(layer), layers[layer].digest)


async def bring_up(machine: PodmanMachine, workload: Workload) -> None:
    for seen in await machine.backend.list():
        if (seen.deployment_id, seen.revision) == workload.key:
            await machine.backend.remove(seen.handle)
    await machine.backend.prepare(workload, ignore)
    handle = await machine.backend.start(workload)
    phases = {seen.handle: seen.phase for seen in await machine.backend.list()}
    assert phases[handle] is Phase.RUNNING


@pytest.mark.parametrize("rounds", [1, pytest.param(ROUNDS, marks=pytest.mark.faults)])
async def test_power_cut_in_mid_fetch_takes_nothing_away_that_was_there(folder: Path, rounds: int) -> None:
    chance, numbers = random.Random(rounds), itertools.count(1)
    with cut_disk(folder, 600) as disk:
        async with machine_on(disk.path, None, folder, numbers) as machine:
            site = machine.site
            kept = site.workload(await site.image(below_bytes=3_000_000), POLITE)
            await machine.backend.prepare(kept, ignore)
            for number in range(rounds):
                begun = site.workload(await site.image(below_bytes=6_000_000, extra_bytes=6_000_000), POLITE)
                fetching = asyncio.ensure_future(machine.backend.prepare(begun, ignore))
                # The first cut comes at once after what was fetched before: nothing but the agent has written that out.
                await asyncio.sleep(chance.uniform(0, 2.5) if number else 0)
                with disk.after_power_cut(folder / f"cut-{number}") as cut:
                    async with machine_on(cut, site.registry, folder, numbers) as again:
                        await again.site.device.link(up=False)
                        await bring_up(again, kept)
                        await again.site.device.link(up=True)
                        with contextlib.suppress(ArtifactDamaged):
                            # It may have to be told first that something of it is damaged.
                            await again.backend.prepare(begun, ignore)
                        await bring_up(again, begun)
                        prove_whole(again, kept.artifact)
                        prove_whole(again, begun.artifact)
                await fetching
                await machine.backend.prune(frozenset({kept.artifact.digest}))
