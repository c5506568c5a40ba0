"""A builder that is never idle by itself: what builds leave there goes all the same, and no build loses anything."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.builds.base_uses import BaseUses
from controller.builds.hosts import BuilderHost, BuilderPool
from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import ArtifactKind, BuildFailed, BuildResult, OnLine, OnState, TargetJob
from controller.builds.own_place import OwnPlace
from controller.builds.targets import load_profiles
from controller.housekeeping import keeper
from controller.housekeeping.estate import Estate
from controller.housekeeping.journal import Journal
from controller.housekeeping.keeper import Housekeeper
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import DAY, Policy
from controller.local.process import free_port
from controller.store import open_store
from tests.support.async_waiting import until
from tests.support.building import SMALL_BASE, Workshop, open_workshop
from tests.support.layers import import_image
from tests.support.queueing import NOWHERE

pytestmark = pytest.mark.podman
WAITING = "the step is running"


class NoBundles:
    """No bundle is asked for here."""

    async def recover(self) -> None: ...

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        raise NotImplementedError


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path / "workshop") as opened:
        yield opened


async def test_what_was_left_and_what_is_old_goes_when_no_moment_without_a_build_comes(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LONGEST_HINDERED", 0.0)
    pool = BuilderPool(
        workshop.builder, [BuilderHost("local", OwnPlace(workshop.builder), 3)], load_profiles(), NoBundles()
    )
    await pool.recover()
    await pool.probe(pool.hosts[0])
    podman = workshop.builder.podman
    image_id = await import_image(podman, "old", "docker.io/me/base:old")
    BaseUses(podman.folder).note(image_id)
    os.utime(podman.folder / "used" / image_id, (time.time() - 40 * DAY,) * 2)
    old = f"sha256:{image_id}"

    async def build(build_id: str, *steps: str) -> BuildResult:
        job = workshop.job(build_id, {"base": SMALL_BASE, "steps": list(steps), "push": False})
        return await pool.build(job, lambda *line: workshop.lines.append(line), workshop.states.append)

    port = free_port()
    wait = f"until (echo > /dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done"
    running = asyncio.create_task(build("running", f"echo {WAITING}; bash -c '{wait}'"))
    await until(lambda: WAITING in workshop.output(), seconds=120)
    before = workshop.images()
    with pytest.raises(BuildFailed):
        await build("failing", "echo by a build that fails > /made", "false")
    (left,) = workshop.images() - before
    seen = [pool.untidy]

    with closing(open_store(tmp_path / "controller.db")) as store:
        estate = Estate(
            store, workshop.uploads, BuildLogs(tmp_path / "logs"), MaterialsStore(tmp_path / "materials"),
            LayerCache(podman, lambda: pool.busy), NOWHERE, Journal(tmp_path / "journal.json"), builders=pool,
        )  # fmt: skip
        housekeeper = Housekeeper(estate, Policy(), 3600)
        # This round finds that it is hindered; builds go on as ever.
        await housekeeper.tidy(0)
        assert pool.takes("x86-cpu", ArtifactKind.IMAGE)
        assert {old, left} <= workshop.images()
        tidying = asyncio.create_task(housekeeper.tidy(0))
        await until(lambda: not pool.takes("x86-cpu", ArtifactKind.IMAGE))
        following = asyncio.create_task(build("following", "true"))
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            await running
        await tidying
    assert not {old, left} & workshop.images()
    seen.append(pool.untidy)
    assert seen == [True, False]
    await following
