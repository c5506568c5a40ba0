"""A controller that is killed while it builds takes the build up again, and nobody sees two results."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.killed_builds import KilledController, killed_controller, state_of

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("killed-builds"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KilledController]:
    async with killed_controller(tmp_path_factory.mktemp("killed")) as made:
        yield made


async def test_a_build_that_was_in_the_middle_of_a_step_is_built_again(site: KilledController) -> None:
    build_id = await site.begin("step", seconds=3)
    await site.reaches(build_id, "BUILDING")
    await site.restart()
    await site.ends_once(build_id)
    lines = await site.call(lambda: [line.line.text for line in site.client.read_build_log(build_id)])
    assert "the controller was restarted; this target is built again" in lines
    await site.leaves_nothing()


async def test_a_wish_to_cancel_outlives_the_controller_and_nothing_is_built_after_all(site: KilledController) -> None:
    build_id = await site.begin("cancelled", seconds=60)
    await site.reaches(build_id, "BUILDING")
    await site.call(site.client.cancel_build, build_id)
    await site.restart()
    ended = await site.reaches(build_id, "CANCELLED")
    assert state_of(ended) == "CANCELLED"
    assert ended.targets[0].reason == "Cancelled"
    await site.leaves_nothing()


async def test_images_that_wait_to_be_joined_are_joined_by_the_next_controller(site: KilledController) -> None:
    build_id = await site.begin("joined", profiles=("x86-cpu", "x86-cuda"))
    await site.comes_to(lambda build: all(target.artifact.digest for target in build.targets), build_id)
    await site.restart()
    build = await site.ends_once(build_id)
    assert build.image_index.digest
    assert len({target.artifact.digest for target in build.targets}) == 2
