"""`kill -9` of a controller at every step of its builds, again and again."""

import asyncio
import os
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.killed_builds import STEPS, KilledController, killed_controller

pytestmark = [
    pytest.mark.faults,
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("killed-builds"),
    pytest.mark.timeout(3600),
]
ROUNDS = int(os.environ.get("LONGSHORE_FAULT_ROUNDS", "25"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KilledController]:
    async with killed_controller(tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.mark.parametrize("step", STEPS)
async def test_a_controller_killed_at_a_step_ends_the_build_once(site: KilledController, step: str) -> None:
    for number in range(max(1, ROUNDS // 5)):
        for build_id in await site.kill_in(step, f"{step.lower()}-{number}"):
            await site.ends_once(build_id)
        await site.leaves_nothing()


async def test_a_controller_killed_at_random_ends_all_builds_once(site: KilledController) -> None:
    chance = random.Random(5)
    for number in range(ROUNDS):
        begun = [await site.begin(f"random-{number}-{each}", seconds=0.3) for each in range(3)]
        await asyncio.sleep(chance.uniform(0, 4))  # a random moment is the point of the test
        await site.restart()
        for build_id in begun:
            await site.ends_once(build_id)
        await site.leaves_nothing()
