"""A machine that leaves takes along what its agent brought, and is expected nowhere any more."""

from pathlib import Path

import pytest

from longshore.errors import Reason
from longshore.failures import LongshoreError
from tests.support.site import Site, running_site, spec_text

pytestmark = pytest.mark.podman


async def test_leaving_takes_containers_images_and_state(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        deployment = await site.deploy(spec_text("service"))
        await site.reaches(deployment, "READY")
        with pytest.raises(AssertionError, match="another agent uses"):
            await leave(site)
        assert len(await site.containers()) == 1
        await site.stop_agent()
        assert "the controller does not know" not in await leave(site)
        await nothing_is_left(site)
        await site.reaches(deployment, "PENDING", "NoMatchingDevice")
        with pytest.raises(LongshoreError) as caught:
            await site.call(site.client.get_device, "edge")
        assert caught.value.reason == Reason.NO_SUCH_DEVICE


async def test_a_deleted_device_goes_on_until_it_leaves_and_may_come_back(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        deployment = await site.deploy(spec_text("service"))
        await site.reaches(deployment, "READY")
        running = await site.containers()
        assert (await site.longshore("devices", "delete", "edge")).out == "edge is no device any more\n"
        await site.reaches(deployment, "PENDING", "NoMatchingDevice")
        assert await site.containers() == running
        await site.stop_agent()
        await site.stack.controller.kill()
        assert "the controller does not know of it" in (said := await leave(site))
        assert said.rstrip().endswith("there: longshore devices delete edge")
        await nothing_is_left(site)
        await site.stack.start_controller()
        await site.enroll()
        await site.start_agent()
        await site.reaches(deployment, "READY")


async def leave(site: Site) -> str:
    return await site.device.run(*site.agent_argv("leave"))


async def nothing_is_left(site: Site) -> None:
    assert await site.device.run("podman", "ps", "-a", "-q") == ""
    assert await site.device.run("podman", "images", "-a", "-q") == ""
    assert not (site.folder / "agent").exists()
