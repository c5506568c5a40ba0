"""Podman's storage is damaged while a device is off: what was damaged is mended, and nothing else."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, State, Volume, Workload
from tests.contract.machine import await_lines
from tests.integration.podman_fixtures import image, machine, site
from tests.integration.test_reconciler_podman import Agent, agent_on, service
from tests.support.damaged_store import (
    DamagedStore,
    cut,
    drop,
    empty,
    little_fetched,
    overwrite,
    received,
    remove,
    switched_off,
    unlink,
    unwrite,
)
from tests.support.podman_machine import PodmanMachine, PodmanSite
from tests.support.workloads import until

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-damage"),
    pytest.mark.asyncio(loop_scope="module"),
]
LARGE = 8_000_000

SPOILED_CONTAINERS: dict[str, Callable[[DamagedStore, Handle], None]] = {
    "containers.json is empty": lambda store, _: empty(store.index("containers")),
    "its own layer is gone": lambda store, handle: remove(store.writable(handle)),
    "its layer has lost what lies below": lambda store, handle: empty(store.writable(handle) / "lower"),
    "its userdata is gone": lambda store, handle: remove(store.userdata(handle)),
    "its userdata is empty": lambda store, handle: empty(*store.userdata(handle).rglob("*.json")),
    "Podman's database is empty": lambda store, _: empty(store.database),
    "Podman's database is cut off": lambda store, _: cut(store.database, 20_000),
    "Podman's database has other content": lambda store, _: overwrite(store.database),
}

VANISHED = ("the image is not in the index", "images.json is empty")
# Then nothing of the layers can be told apart.
ALL_LOST = "layers.json is empty"
# Each damages the topmost layer of the image, or none; below that there is a sound one of LARGE bytes.
DAMAGED_IMAGES: dict[str, Callable[[DamagedStore, Artifact], None]] = {
    "a layer's files are empty": lambda store, artifact: empty(*programs(store, artifact)),
    "a layer's files have other content": lambda store, artifact: overwrite(*programs(store, artifact)),
    "a layer's file is gone": lambda store, artifact: unlink(*programs(store, artifact)),
    "a layer's files are all gone": lambda store, artifact: remove(store.layers(artifact)[0] / "diff"),
    "a layer's folder is gone": lambda store, artifact: remove(store.layers(artifact)[0]),
    "layers.json is empty": lambda store, _: empty(store.index("layers")),
    "images.json is empty": lambda store, _: empty(store.index("images")),
    "a layer is not in the index": lambda store, artifact: drop(store, "layers", store.layers(artifact)[0].name),
    "the image is not in the index": lambda store, artifact: drop(store, "images", store.image(artifact)["id"]),
    "manifests and configuration are empty": lambda store, artifact: empty(*store.image_files(artifact)),
    "manifests and configuration are gone": lambda store, artifact: remove(store.image_files(artifact)[0].parent),
    "a manifest is gone": lambda store, artifact: unlink(store.image_file(artifact, "manifest")),
    "a manifest was never written": lambda store, artifact: unwrite(store, artifact, "manifest"),
    "the configuration was never written": lambda store, artifact: unwrite(
        store, artifact, store.configuration(artifact)
    ),
}
# What Podman mends by itself, and what takes no fetching.
SCRATCHES: dict[str, Callable[[DamagedStore, Artifact], None]] = {
    "a layer's link is gone": lambda store, artifact: unlink(store.layers(artifact)[0] / "link"),
    "a layer's link is empty": lambda store, artifact: empty(store.layers(artifact)[0] / "link"),
    "the folder of links is gone": lambda store, _: remove(store.root / "overlay/l"),
    "recipes of layers are gone": lambda store, _: unlink(*store.root.rglob("*.tar-split.gz")),
    "locks have other content": lambda store, _: overwrite(*store.root.rglob("*.lock")),
    "locks are gone": lambda store, _: unlink(*store.root.rglob("*.lock")),
}


# Of each kind these are tried each time, the others with the slow tests.
OFTEN = (
    "its own layer is gone",
    "Podman's database is cut off",
    "a layer's files are empty",
    "a layer's folder is gone",
    "manifests and configuration are empty",
    "a layer's link is empty",
)


def kinds(names: Iterable[str]) -> list[ParameterSet]:
    return [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in names]


def programs(store: DamagedStore, artifact: Artifact) -> list[Path]:
    """Of the topmost layer."""
    return [path for path in (store.layers(artifact)[0] / "diff").rglob("*") if path.name == "busybox"]


def restarts(agent: Agent, workload: Workload) -> int:
    status = agent.status(workload)
    assert status is not None
    return status.restarts


@pytest.mark.parametrize("damage", kinds(SPOILED_CONTAINERS))
async def test_a_spoiled_container_is_made_anew_and_nothing_is_fetched(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path, damage: str
) -> None:
    spoiled, sound = service(site, image), service(site, image)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(spoiled, sound)
        handle = agent.handle(spoiled)
    async with switched_off(machine) as store:
        SPOILED_CONTAINERS[damage](store, handle)
    async with little_fetched(site.device), agent_on(machine, tmp_path) as agent:
        await agent.settle(spoiled, sound)
    assert len(await machine.backend.list()) == 2
    # Nothing is left of those that they replace.
    assert len(DamagedStore(site.device).entries("containers")) == 2


@pytest.mark.parametrize("damage", kinds(DAMAGED_IMAGES))
async def test_what_is_damaged_of_an_image_is_fetched_again_and_nothing_else(
    site: PodmanSite, machine: PodmanMachine, tmp_path: Path, damage: str
) -> None:
    artifact = await site.image(below_bytes=LARGE)
    damaged, sound = service(site, artifact), service(site, await site.image())
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(damaged, sound)
        starts = restarts(agent, sound)
    async with switched_off(machine) as store:
        DAMAGED_IMAGES[damage](store, artifact)
    before = await received(site.device)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(damaged, sound)
        assert restarts(agent, sound) == starts + 1
        # That an image is not there at all may have any cause.
        assert ("ArtifactDamaged" in [reason for _, _, reason in agent.told()]) is (damage not in VANISHED)
    fetched = await received(site.device) - before
    assert fetched < LARGE or damage == ALL_LOST


@pytest.mark.parametrize("scratch", kinds(SCRATCHES))
async def test_what_needs_no_fetching_is_mended_without(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path, scratch: str
) -> None:
    workload = service(site, image)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)
    async with switched_off(machine) as store:
        SCRATCHES[scratch](store, image)
    async with little_fetched(site.device), agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)


async def test_a_damaged_database_that_others_need_is_left_alone_and_told(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    workload = service(site, image)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)
    await site.device.run("podman", "create", "--name", "somebodys", image.reference)
    async with switched_off(machine) as store:
        whole = store.database.read_bytes()
        overwrite(store.database)
        damaged = store.database.read_bytes()
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(workload)
        await until(lambda: agent.reconciler.condition.startswith("StorageDamaged: "), seconds=60)
        assert "container somebodys" in agent.reconciler.condition
        assert store.database.read_bytes() == damaged
        store.database.write_bytes(whole)
        await agent.until(workload, State.RUNNING, "Ready")
    await site.device.run("podman", "rm", "somebodys")


async def test_a_volume_outlives_podmans_database(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    keeps = "cat /data/kept 2>/dev/null || echo precious > /data/kept; touch /tmp/ready; exec sleep 1000"
    workload = replace(service(site, image, keeps), volumes=(Volume("data", "/data"),))
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)
    async with switched_off(machine) as store:
        overwrite(store.database)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(workload)
        assert await await_lines(machine.backend, agent.handle(workload), 1) == ["precious"]


async def test_a_container_that_is_spoiled_beside_one_that_runs_is_told_and_replaced_alone(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    spoiled, sound = service(site, image), service(site, image)
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(spoiled, sound)
        before, kept = agent.handle(spoiled), agent.handle(sound)
    # Nobody sees it end: its files go before the agent is back.
    await machine.backend.stop(before, 0.0)
    remove(DamagedStore(site.device).writable(before))
    await machine.restart_agent()
    async with agent_on(machine, tmp_path) as agent:
        await agent.settle(spoiled, sound)
        assert agent.handle(sound) == kept
        assert agent.handle(spoiled) != before
        assert (1, State.BACKOFF, "InstanceDamaged") in agent.told()
