"""Podman's storage is damaged while a device is off: what was damaged is mended, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, State
from tests.integration.podman_fixtures import image, machine, site
from tests.integration.test_reconciler_podman import agent_on, service
from tests.support.damaged_store import DamagedStore, empty, received, remove
from tests.support.podman_machine import PodmanMachine, PodmanSite

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-damage"),
    pytest.mark.asyncio(loop_scope="module"),
]
# More than a token, a manifest and what else is asked beside layers; less than any layer here.
LITTLE = 100_000

SPOILED_CONTAINERS: dict[str, Callable[[DamagedStore, Handle], None]] = {
    "containers.json is empty": lambda store, _: empty(store.index("containers")),
    "its own layer is gone": lambda store, handle: remove(store.writable(handle)),
    "its layer has lost what lies below": lambda store, handle: empty(store.writable(handle) / "lower"),
    "its userdata is gone": lambda store, handle: remove(store.userdata(handle)),
    "its userdata is empty": lambda store, handle: empty(*store.userdata(handle).rglob("*.json")),
    "Podman's database is empty": lambda store, _: empty(store.database),
}


@pytest.mark.parametrize("damage", SPOILED_CONTAINERS)
async def test_a_spoiled_container_is_made_anew_and_nothing_is_fetched(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path, damage: str
) -> None:
    spoiled, sound = service(site, image), service(site, image)
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(spoiled, sound)
        await agent.until(spoiled, State.RUNNING, "Ready")
        await agent.until(sound, State.RUNNING, "Ready")
        handle = agent.reconciler.handle_of(spoiled.deployment_id)
        assert handle is not None
    await site.device.power_cut()
    SPOILED_CONTAINERS[damage](DamagedStore(site.device), handle)
    await site.device.boot()
    await machine.restart_agent()
    before = await received(site.device)
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(spoiled, sound)
        await agent.until(spoiled, State.RUNNING, "Ready")
        await agent.until(sound, State.RUNNING, "Ready")
    assert await received(site.device) - before < LITTLE
    assert len(await machine.backend.list()) == 2


async def test_a_container_that_is_spoiled_beside_one_that_runs_is_told_and_replaced_alone(
    site: PodmanSite, image: Artifact, machine: PodmanMachine, tmp_path: Path
) -> None:
    spoiled, sound = service(site, image), service(site, image)
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(spoiled, sound)
        await agent.until(spoiled, State.RUNNING, "Ready")
        await agent.until(sound, State.RUNNING, "Ready")
        handles = [agent.reconciler.handle_of(workload.deployment_id) for workload in (spoiled, sound)]
    assert handles[0] is not None
    # Nobody sees it end: its files go before the agent is back.
    await machine.backend.stop(handles[0], 0.0)
    remove(DamagedStore(site.device).writable(handles[0]))
    await machine.restart_agent()
    async with agent_on(machine, tmp_path) as agent:
        agent.wish(spoiled, sound)
        await agent.until(spoiled, State.RUNNING, "Ready")
        await agent.until(sound, State.RUNNING, "Ready")
        assert agent.reconciler.handle_of(sound.deployment_id) == handles[1]
        assert agent.reconciler.handle_of(spoiled.deployment_id) != handles[0]
        assert (1, State.BACKOFF, "InstanceDamaged") in agent.told()
