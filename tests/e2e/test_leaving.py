"""An agent that leaves a machine takes along what it brought."""

from pathlib import Path

import pytest

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
        await leave(site)
        assert await site.device.run("podman", "ps", "-a", "-q") == ""
        assert await site.device.run("podman", "images", "-a", "-q") == ""
        assert not (site.folder / "agent").exists()


async def leave(site: Site) -> None:
    await site.device.run(*site.agent_argv("leave"))
