"""Long runs of `kill -9` at random moments. `make faults` runs them; LONGSHORE_FAULT_ROUNDS sets how long."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from longshore.v1 import deployment_pb2
from tests.support.site import PROJECT, Site, fetch, running_site, spec_text, status_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("random-kills"),
    pytest.mark.timeout(3600),
]
ROUNDS = int(os.environ.get("LONGSHORE_FAULT_ROUNDS", "25"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("kills")) as made:
        yield made


async def settled(site: Site, deployment: deployment_pb2.Deployment, answer: str) -> None:
    """Afterwards the deployment is ready and its service answers this, from a single container."""
    end = time.monotonic() + 120
    while True:
        found = await site.reaches(deployment, "READY", seconds=120)
        if await fetch(found) == answer:
            break
        assert time.monotonic() < end, site.logs()
    label = f"label=dev.longshore.deployment={deployment.id}"
    running = await site.device.run("podman", "ps", "-q", "--filter", label)
    assert len(running.split()) == 1, running


async def events_are_whole(site: Site, known: list[int]) -> list[int]:
    """The numbers of all events: those that were known, and what came since, without a gap."""
    numbers = [e.number for e in await site.call(lambda: list(site.client.watch_events(PROJECT)))]
    assert numbers[: len(known)] == known
    assert numbers == list(range(1, len(numbers) + 1))
    return numbers


async def test_controller_killed_at_random_loses_nothing_and_everything_converges(site: Site) -> None:
    chance, numbers = random.Random(7), list[int]()
    for number in range(ROUNDS):
        wished = await site.deploy(spec_text("often", ANSWER=f"answer-{number}"))
        await asyncio.sleep(chance.uniform(0, 1.5))  # a random moment is the point of the test
        await site.stack.controller.kill()
        await site.stack.start_controller()
        await settled(site, wished, f"answer-{number}")
        numbers = await events_are_whole(site, numbers)
    assert (await site.state(wished)).deployment.revision == ROUNDS
    await site.delete(wished)


async def test_agent_killed_at_random_converges_without_orphans_and_journal_gaps(site: Site) -> None:
    chance, numbers = random.Random(11), list[int]()
    steady = await site.deploy(spec_text("steady", ANSWER="steady"))
    await settled(site, steady, "steady")
    for number in range(ROUNDS):
        wished = await site.deploy(spec_text("changing", ANSWER=f"answer-{number}"))
        await asyncio.sleep(chance.uniform(0, 1.5))  # a random moment is the point of the test
        await site.stop_agent(kill=True)
        await site.start_agent()
        await settled(site, wished, f"answer-{number}")
        numbers = await events_are_whole(site, numbers)
        assert status_of(await site.state(steady)).restarts == 0
    assert len(await site.containers()) == 2
    assert "journal has a gap" not in (site.folder / "controller" / "controller.log").read_text()


async def test_power_cuts_at_random_bring_everything_back(site: Site) -> None:
    chance = random.Random(13)
    wished = await site.deploy(spec_text("powered", ANSWER="powered"))
    await settled(site, wished, "powered")
    for _ in range(max(1, ROUNDS // 5)):
        await asyncio.sleep(chance.uniform(0, 2))  # a random moment is the point of the test
        await site.device.power_cut()
        if site.agent is not None:
            await site.agent.wait()
        await site.device.boot()
        await site.start_agent()
        await settled(site, wished, "powered")
