"""The agent as a service of a machine that systemd runs: installed in one line, back after each boot, removed again."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_agent.runtime.identity import state_lock
from tests.support import device_systemd
from tests.support.installed_agent import InstalledAgent
from tests.support.site import Site, fetch, running_site, spec_text

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("install"),
    pytest.mark.skipif(not device_systemd.available(), reason="needs systemd's program; apt-get install systemd"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site"), enroll=False, systemd=True) as made:
        yield made


@pytest.fixture
def agent(site: Site) -> InstalledAgent:
    return InstalledAgent(site, "longshore-edge-agent")


async def test_one_line_installs_an_agent_that_outlives_kills_and_power_cuts(site: Site, agent: InstalledAgent) -> None:
    token = await site.call(site.client.create_enroll_token, device_name="edge", profile="x86-cpu")
    said = await agent("install", "--token", token.token, *agent.state)
    assert "enrolled as edge" in said
    assert f"{agent.unit} runs, now and after each boot" in said
    await site.seen_device(lambda device: device.presence == 1)
    assert "service      active" in await agent("status", *agent.state)

    deployment = await site.deploy(spec_text("installed", ANSWER="here"))
    assert await fetch(await site.reaches(deployment, "READY")) == "here"
    before = await site.containers()
    await agent.restarted_and_killed()
    await site.reaches(deployment, "READY")
    assert await site.containers() == before

    await site.device.power_cut()
    await site.device.boot()
    assert await fetch(await site.reaches(deployment, "READY", seconds=120)) == "here"

    pid = await agent.pid()
    assert f"{agent.unit} runs" in await agent("install", *agent.state)
    assert await agent.pid() not in (0, pid), "what runs is the program that was installed last"
    assert await fetch(await site.reaches(deployment, "READY")) == "here"
    assert len(await site.containers()) == 1
    assert "is removed; what it started runs on" in await agent("uninstall")
    assert await site.device.run("sh", "-c", f"systemctl list-unit-files --no-legend {agent.unit} || true") == ""
    assert await fetch(await site.state(deployment)) == "here"
    assert "there is no" in await agent("uninstall")
    with state_lock(site.folder / "agent"), pytest.raises(AssertionError, match="another process works with"):
        await agent("install", *agent.state)
    assert "there is no" in await agent("uninstall")


async def test_doctor_finds_nothing_wrong_with_a_device_that_works(site: Site, agent: InstalledAgent) -> None:
    said = await agent("doctor", *agent.state)
    assert "problem" not in said
    for words in (
        "systemd runs this machine",
        "is the device edge",
        "the controller answers",
        "the broker answers",
        "Podman",
    ):
        assert words in said
