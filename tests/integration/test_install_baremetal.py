"""The bare-metal agent as a service of a machine that systemd runs: its workloads are in units of their own."""

import re
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support import device_systemd
from tests.support.async_waiting import until_holds
from tests.support.installed_agent import InstalledAgent
from tests.support.site import Site, fetch, running_site, spec_text
from tests.support.virtualenv_machine import systemd_deaf

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("install-baremetal"),
    pytest.mark.skipif(not device_systemd.available(), reason="needs systemd's program; apt-get install systemd"),
]
ASK = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080', timeout=3).read().decode())"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with running_site(folder, enroll=False, build=False, systemd=True, program="baremetal_agent.main") as made:
        yield made


@pytest.fixture
def agent(site: Site) -> InstalledAgent:
    return InstalledAgent(site, "longshore-baremetal-agent")


async def processes(site: Site) -> str:
    """Number and start of all that runs in units of workloads."""
    groups = "cat /sys/fs/cgroup/longshore.slice/*/cgroup.procs /sys/fs/cgroup/*/longshore.slice/*/cgroup.procs"
    each = "echo $p $(cut -d' ' -f22 /proc/$p/stat)"
    return await site.device.shell(f"for p in $({groups} 2>/dev/null | sort -u); do {each}; done")


async def answers(site: Site) -> bool:
    """Whether the service does, as the device itself hears it."""
    return "here" in await site.device.shell(f'{sys.executable} -c "{ASK}"')


async def test_workloads_are_in_units_that_outlive_the_agents_and_come_back_without_a_network(
    site: Site, agent: InstalledAgent
) -> None:
    token = await site.call(site.client.create_enroll_token, device_name="edge", profile="x86-cpu")
    assert f"{agent.unit} runs, now and after each boot" in await agent("install", "--token", token.token, *agent.state)
    device = await site.seen_device(lambda device: device.presence == 1 and "supervision:systemd" in str(device))
    assert device.name == "edge"

    deployment = await site.deploy(spec_text("bundled", artifact="bundle", ANSWER="here"), build=True)
    assert await fetch(await site.reaches(deployment, "READY")) == "here"
    before = await processes(site)
    # The supervisor, the sandbox's own two, and the service.
    assert len(before.splitlines()) == 4
    listed = await site.device.shell(f"systemd-cgls --no-pager --full -u {agent.unit}")
    assert "longshore-baremetal-agent run" in listed
    assert not re.search("bwrap|server.py", listed)
    await agent.restarted_and_killed()
    await site.reaches(deployment, "READY")
    assert await processes(site) == before

    await site.device.power_cut()
    await site.device.boot()
    await site.device.link(up=False)
    await until_holds(lambda: answers(site), seconds=120)
    assert await processes(site) not in ("", before)
    await site.device.link(up=True)
    assert await fetch(await site.reaches(deployment, "READY", seconds=120)) == "here"


async def test_doctor_says_that_units_can_be_started(site: Site, agent: InstalledAgent) -> None:
    said = await agent("doctor", *agent.state)
    assert "problem" not in said
    assert "workloads run in units of systemd, below longshore.slice" in said
    assert "kept to themselves by bubblewrap" in said
    async with systemd_deaf(site.device):
        said = await site.device.shell(f"{agent.program} doctor {' '.join(agent.state)}")
    assert "systemd starts no units: Failed to connect to bus" in said


async def test_nothing_is_left_once_the_service_is_uninstalled_and_the_device_has_left(
    site: Site, agent: InstalledAgent
) -> None:
    before = await processes(site)
    assert "is removed; what it started runs on" in await agent("uninstall")
    assert await processes(site) == before != ""
    assert "has left: 1 instance(s)" in await agent("leave", *agent.state)
    assert await processes(site) == ""
    assert await site.device.shell("systemctl list-units --all --no-legend --plain 'longshore*'") == ""
    left = "find /sys/fs/cgroup /run -name 'longshore-*' -o -name 'longshore.*' -o -name 'secrets-*'"
    assert await site.device.shell(left) == ""
    assert not (site.folder / "agent").exists()
