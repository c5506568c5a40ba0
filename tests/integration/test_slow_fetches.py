"""Fetches from a registry that has gone silent hold up nothing but other fetches."""

import asyncio
from dataclasses import replace

import pytest

from edge_agent.podman.connection import THREADS
from edge_agent.podman.images import FETCHES_AT_A_TIME
from edge_agent.runtime.backend import Phase
from edge_agent.runtime.model import Artifact, Workload
from tests.contract.machine import find, ignore
from tests.integration.podman_fixtures import image, machine, site
from tests.support.async_waiting import until
from tests.support.podman_machine import PodmanMachine, PodmanSite
from tests.support.stalling_proxy import stalling_proxy

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-fetches"),
    pytest.mark.asyncio(loop_scope="module"),
]
WAITS = "while :; do sleep 1000 & wait; done"
MANY = THREADS + 4


async def workloads_by(site: PodmanSite, address: str) -> list[Workload]:
    """Each with an image of its own, to be had from that address."""
    artifacts = [await site.image(extra_bytes=100_000) for _ in range(MANY)]
    repository = artifacts[0].repository.partition("/")[2]
    return [site.workload(replace(artifact, repository=f"{address}/{repository}"), WAITS) for artifact in artifacts]


async def test_many_fetches_that_hang_hold_up_nothing_else(
    machine: PodmanMachine, site: PodmanSite, image: Artifact
) -> None:
    present = site.workload(image, WAITS)
    await machine.backend.prepare(present, ignore)
    begun: set[int] = set()

    async def fetch(number: int, workload: Workload) -> None:
        await machine.backend.prepare(workload, lambda _: begun.add(number))

    async with stalling_proxy(site.registry.address, site.device.gateway) as proxy:
        workloads = await workloads_by(site, proxy.address)
        fetches = [asyncio.create_task(fetch(*numbered)) for numbered in enumerate(workloads)]
        await until(lambda: len(begun) == FETCHES_AT_A_TIME and proxy.stalled, seconds=60)
        # What the reconciler does all the time: with no thread left it would wait for the registry.
        async with asyncio.timeout(60):
            await live(machine, present)
        assert not any(fetch.done() for fetch in fetches)
        assert len(begun) == FETCHES_AT_A_TIME
        proxy.released.set()
        await asyncio.gather(*fetches)
    assert len(begun) == MANY


async def live(machine: PodmanMachine, workload: Workload) -> None:
    """An instance is started, asked, stopped and listed."""
    handle = await machine.backend.start(workload)
    assert (await machine.backend.exec(handle, ["echo", "here"], 20)).output == b"here\n"
    await machine.backend.stop(handle, 0)
    seen = await find(machine.backend, handle)
    assert seen is not None
    assert seen.phase is Phase.EXITED
