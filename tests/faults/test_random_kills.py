"""`kill -9` at random moments. Each backend's agent is killed some times in `make test`, and hundreds of times in
`make faults`: LONGSHORE_FAULT_ROUNDS sets how often."""

import asyncio
import os
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.fault_cycles import Cycles
from tests.support.fault_site import KINDS, FaultSite, fault_site

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("random-kills"),
    pytest.mark.timeout(7200),
]
ROUNDS = int(os.environ.get("LONGSHORE_FAULT_ROUNDS", "200"))
FEW = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultSite]:
    async with fault_site(tmp_path_factory.mktemp("kills"), request.param) as made:
        yield made


@pytest.mark.parametrize("rounds", [FEW, pytest.param(ROUNDS, marks=pytest.mark.faults)])
async def test_agent_killed_at_random_converges_without_orphans_and_journal_gaps(site: FaultSite, rounds: int) -> None:
    async with Cycles.prepared(site, random.Random(rounds)) as cycles:
        for _ in range(rounds):
            await cycles.turn()
        await cycles.all_is_well()


@pytest.mark.faults
async def test_controller_killed_at_random_loses_nothing_and_everything_converges(site: FaultSite) -> None:
    chance = random.Random(7)
    rounds = max(1, ROUNDS // 8)
    for number in range(rounds):
        wished = await site.deploy(site.spec("often", ANSWER=f"answer-{number}"))
        await asyncio.sleep(chance.uniform(0, 1.5))  # a random moment is the point of the test
        await site.site.stack.controller.kill()
        await site.site.stack.start_controller()
        await site.converges(wished, f"answer-{number}")
        await site.journal_is_whole()
    assert (await site.site.state(wished)).deployment.revision == rounds
    await site.site.delete(wished)


@pytest.mark.faults
async def test_power_cuts_at_random_bring_everything_back(site: FaultSite) -> None:
    chance = random.Random(13)
    wished = await site.deploy(site.spec("powered", ANSWER="powered"))
    await site.converges(wished, "powered")
    for _ in range(max(1, ROUNDS // 40)):
        await asyncio.sleep(chance.uniform(0, 2))  # a random moment is the point of the test
        await site.site.device.power_cut()
        if site.site.agent is not None:
            await site.site.agent.wait()
        await site.site.device.boot()
        await site.site.start_agent()
        await site.converges(wished, "powered")
    await site.holds_only([wished.id])
    await site.site.delete(wished)
    await site.journal_is_whole()
