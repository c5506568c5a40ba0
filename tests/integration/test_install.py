"""The agent as a service of a machine that systemd runs: installed in one line, back after each boot, removed again."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edge_agent.runtime.identity import state_lock
from tests.support import device_systemd
from tests.support.site import Site, fetch, running_site, spec_text

pytestmark = [
    pytest.mark.podman,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("install"),
    pytest.mark.skipif(not device_systemd.available(), reason="needs systemd's program; apt-get install systemd"),
]
UNIT = "longshore-edge-agent.service"
PROGRAM = str(Path(sys.executable).with_name("longshore-edge-agent"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site"), enroll=False, systemd=True) as made:
        yield made


async def agent(site: Site, command: str, *arguments: str) -> str:
    return await site.device.run(PROGRAM, command, *arguments)


async def service_pid(site: Site) -> int:
    return int((await site.device.run("systemctl", "show", "-p", "MainPID", "--value", UNIT)).strip())


async def until_other_pid(site: Site, pid: int) -> None:
    end = time.monotonic() + 60
    while await service_pid(site) in (0, pid):
        assert time.monotonic() < end, await site.device.run("systemctl", "status", UNIT)
        await asyncio.sleep(0.1)


async def test_one_line_installs_an_agent_that_outlives_kills_and_power_cuts(site: Site) -> None:
    state = ("--state-dir", str(site.folder / "agent"))
    token = await site.call(site.client.create_enroll_token, device_name="edge", profile="x86-cpu")
    said = await agent(site, "install", "--token", token.token, *state)
    assert "enrolled as edge" in said
    assert f"{UNIT} runs, now and after each boot" in said
    await site.seen_device(lambda device: device.presence == 1)
    assert "service      active" in await agent(site, "status", *state)

    deployment = await site.deploy(spec_text("installed", ANSWER="here"))
    assert await fetch(await site.reaches(deployment, "READY")) == "here"
    before, pid = await site.containers(), await service_pid(site)
    await site.device.run("systemctl", "restart", UNIT)
    await until_other_pid(site, pid)
    pid = await service_pid(site)
    await site.device.run("kill", "-KILL", str(pid))
    await until_other_pid(site, pid)
    await site.reaches(deployment, "READY")
    assert await site.containers() == before

    await site.device.power_cut()
    await site.device.boot()
    assert await fetch(await site.reaches(deployment, "READY", seconds=120)) == "here"

    pid = await service_pid(site)
    assert f"{UNIT} runs" in await agent(site, "install", *state)
    assert await service_pid(site) not in (0, pid), "what runs is the program that was installed last"
    assert await fetch(await site.reaches(deployment, "READY")) == "here"
    assert len(await site.containers()) == 1
    assert "is removed; what it started runs on" in await agent(site, "uninstall")
    assert await site.device.run("sh", "-c", f"systemctl list-unit-files --no-legend {UNIT} || true") == ""
    assert await fetch(await site.state(deployment)) == "here"
    assert "there is no" in await agent(site, "uninstall")
    with state_lock(site.folder / "agent"), pytest.raises(AssertionError, match="another process works with"):
        await agent(site, "install", *state)
    assert "there is no" in await agent(site, "uninstall")


async def test_doctor_finds_nothing_wrong_with_a_device_that_works(site: Site) -> None:
    said = await agent(site, "doctor", "--state-dir", str(site.folder / "agent"))
    assert "problem" not in said
    for words in (
        "systemd runs this machine",
        "is the device edge",
        "the controller answers",
        "the broker answers",
        "Podman",
    ):
        assert words in said
