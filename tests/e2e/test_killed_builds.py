"""A controller that is killed while it builds takes the build up again, and nobody sees two results."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from longshore.v1 import build_pb2
from tests.support.killed_builds import PROFILES, KilledController, killed_controller, state_of

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("killed-builds"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KilledController]:
    async with killed_controller(tmp_path_factory.mktemp("killed")) as made:
        yield made


def takes_all_slots_in_a_step(build: build_pb2.Build) -> bool:
    states = {state_of(target) for target in build.targets}
    return "BUILDING" in states and "QUEUED" not in states


async def test_a_build_in_the_middle_of_a_step_is_built_again_and_one_that_waits_for_it_is_built_after_all(
    site: KilledController,
) -> None:
    build_id = await site.begin("step", seconds=5, profiles=PROFILES)
    await site.comes_to(takes_all_slots_in_a_step, build_id)
    waiting = await site.begin("waiting")
    await site.stack.controller.kill()
    assert "BUILDING" in site.stored_states(build_id)
    assert site.stored_states(waiting) == {"QUEUED"}
    await site.stack.start_controller()
    for each in (build_id, waiting):
        await site.ends_once(each)
    lines = await site.call(lambda: [line.line.text for line in site.client.read_build_log(build_id)])
    assert "the controller was restarted; this target is built again" in lines
    await site.leaves_nothing()


@pytest.mark.parametrize("step", ["PREPARING", "PUSHING"])
async def test_a_build_whose_controller_is_killed_before_or_after_its_steps_ends_once(
    site: KilledController, step: str
) -> None:
    """`make faults` does this again and again, with builds of several targets."""
    for build_id in await site.kill_in(step, step.lower(), ("x86-cpu",)):
        await site.ends_once(build_id)
    await site.leaves_nothing()


async def test_a_wish_to_cancel_outlives_the_controller_and_nothing_is_built_after_all(site: KilledController) -> None:
    kept = await site.kept()
    build_id = await site.begin("cancelled", seconds=60)
    await site.reaches(build_id, "BUILDING")
    await site.call(site.client.cancel_build, build_id)
    await site.restart()
    ended = await site.reaches(build_id, "CANCELLED")
    assert state_of(ended) == "CANCELLED"
    assert ended.targets[0].reason == "Cancelled"
    await site.leaves_nothing()
    assert await site.kept() == kept


async def test_images_that_wait_to_be_joined_are_joined_by_the_next_controller(site: KilledController) -> None:
    build_id = await site.begin("joined", profiles=("x86-cpu", "x86-cuda"))
    await site.comes_to(lambda build: all(target.artifact.digest for target in build.targets), build_id)
    await site.restart()
    build = await site.ends_once(build_id)
    assert build.image_index.digest
    assert len({target.artifact.digest for target in build.targets}) == 2
