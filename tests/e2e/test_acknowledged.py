"""What was acknowledged survives `kill -9`, and what waits for something that can become true goes on by itself."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from longshore.sources import collect
from longshore.uploads import UploadProgress
from longshore.v1 import build_pb2, deployment_pb2
from tests.support.site import PROJECT, Site, fetch, running_site, spec_text, state_of

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("acknowledged")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("acknowledged"), enroll=False) as made:
        yield made


async def restart(site: Site) -> None:
    await site.stack.controller.kill()
    await site.stack.start_controller()


async def test_deployment_without_a_device_waits_for_one_that_enrolls_later(site: Site) -> None:
    early = await site.deploy(spec_text("early", ANSWER="early"))
    answer = await site.reaches(early, "PENDING", "NoMatchingDevice")
    assert answer.instances == []
    await restart(site)
    assert state_of(await site.state(early)) == "PENDING"
    await site.enroll()
    await site.start_agent()
    assert await fetch(await site.reaches(early, "READY")) == "early"
    await site.delete(early)


async def test_controller_killed_in_a_build_takes_it_up_again(site: Site) -> None:
    slow = spec_text("slow", ANSWER="slow").replace("build:\n", "build:\n  packages: {apt: [tree]}\n")
    deployment = await site.deploy(slow, build=True)
    for kills in range(2):
        await building(site, deployment, kills)
        await restart(site)
    answer = await site.reaches(deployment, "READY" if site.agent else "PENDING", seconds=240)
    build = await site.call(site.client.get_build, answer.deployment.build_id)
    assert build.state == build_pb2.BUILD_STATE_SUCCEEDED
    lines = await site.call(lambda: list(site.client.read_build_log(build.id)))
    assert [line.line.number for line in lines] == list(range(1, len(lines) + 1))
    assert sum("built again" in line.line.text for line in lines) == 2
    await site.delete(deployment)


async def building(site: Site, deployment: deployment_pb2.Deployment, kills: int) -> None:
    """Until Podman works on the deployment's build again after so many kills."""
    build_id = (await site.state(deployment)).deployment.build_id
    while True:
        # The log first: it says "built again" after the state is no more that of the controller before.
        lines = await site.call(lambda: list(site.client.read_build_log(build_id)))
        again = sum("built again" in line.line.text for line in lines)
        build = await site.call(site.client.get_build, build_id)
        assert build.state not in (build_pb2.BUILD_STATE_SUCCEEDED, build_pb2.BUILD_STATE_FAILED), build
        if build.state == build_pb2.BUILD_STATE_BUILDING and again == kills:
            return
        await asyncio.sleep(0.02)


async def test_nothing_acknowledged_is_lost_when_the_controller_is_killed_at_random(site: Site) -> None:
    chance = random.Random(20)
    made: list[str] = []
    numbers: list[int] = []
    for round_number in range(4):
        killer = asyncio.create_task(kill_after(site, chance.uniform(0.0, 0.3)))
        for part in range(6):
            text = spec_text(f"kept-{round_number}-{part}").replace(
                "targets:\n-", "targets:\n- labels: {kept: here}\n "
            )
            accepted = await site.deploy(text)
            made.append(accepted.id)
        await killer
        listed = await site.call(lambda: [d.id for d in site.client.list_deployments(PROJECT)])
        assert set(made) <= set(listed)
        assert len(listed) == len(set(listed))
        events = await site.call(lambda: list(site.client.watch_events(PROJECT)))
        assert [event.number for event in events][: len(numbers)] == numbers
        numbers = [event.number for event in events]
        assert numbers == list(range(1, len(numbers) + 1))


async def kill_after(site: Site, seconds: float) -> None:
    await asyncio.sleep(seconds)  # a random moment is the point of the test
    await restart(site)


async def test_upload_cut_by_a_killed_controller_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(32 * 2**20)
    (tmp_path / "model.bin").write_bytes(content)
    far_enough = threading.Event()

    def on_progress(progress: UploadProgress) -> None:
        if progress.sent_bytes > 8 * 2**20:
            far_enough.set()

    upload = asyncio.create_task(site.call(site.client.upload, collect(tmp_path, ["model.bin"]), on_progress))
    assert await asyncio.to_thread(far_enough.wait, 30)
    await site.stack.controller.kill()
    uploads = site.stack.folder.root / "uploads"
    (partial,) = (path for path in (uploads / "partial").iterdir() if path.suffix != ".durable")
    assert 0 < partial.stat().st_size < len(content)
    await site.stack.start_controller()
    (entry,) = await upload
    (complete,) = (uploads / "complete").rglob(entry.digest.removeprefix("sha256:"))
    assert complete.read_bytes() == content
