"""Answers of Podman that nobody expected: they are told, and end the care for nothing else."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edge_agent.podman.spec import LABEL
from edge_agent.runtime.backend import Phase
from edge_agent.runtime.model import Artifact, Resources
from tests.contract.machine import await_lines, find, ignore
from tests.integration.podman_fixtures import OWNERS, image, machine, site
from tests.support.newer_podman import INFO, newer_podman
from tests.support.podman_machine import PodmanMachine, PodmanSite, until
from tests.support.remote_backend import RemoteBackend

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-answers"),
    pytest.mark.asyncio(loop_scope="module"),
]
WAITS = "while :; do sleep 1000 & wait; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(site: PodmanSite) -> AsyncIterator[Path]:
    """The socket of a Podman service on the device that is no agent's own."""
    path = site.folder / "service.sock"
    process = site.device.popen(["podman", "system", "service", "--time=0", f"unix://{path}"])

    async def answers() -> bool:
        return path.is_socket()

    await until(answers)
    yield path
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def agent_behind(site: PodmanSite, url: str) -> RemoteBackend:
    return await RemoteBackend.launch(site.command, replace(site.options(f"newer-{next(OWNERS)}"), url=url))


def names_the_signal(told: dict[str, Any]) -> None:
    """As Podman 5 does."""
    assert told["Config"]["StopSignal"] == signal.SIGRTMIN + 3
    told["Config"]["StopSignal"] = "SIGRTMIN+3"


async def test_an_image_is_stopped_by_the_real_time_signal_that_it_asks_for(site: PodmanSite, service: Path) -> None:
    artifact = await site.image(stop_signal="SIGRTMIN+3")
    workload = site.workload(artifact, f"trap 'exit 7' {signal.SIGRTMIN + 3}; echo ready; {WAITS}")
    with newer_podman(site.folder / "newer.sock", service, names_the_signal) as url:
        agent = await agent_behind(site, url)
        try:
            await agent.prepare(workload, ignore)
            handle = await agent.start(workload)
            await await_lines(agent, handle, 1)
            await agent.stop(handle, 30)

            async def ended() -> bool:
                seen = await find(agent, handle)
                return seen is not None and seen.exit_code == 7

            await until(ended)
            await agent.remove(handle)
        finally:
            await agent.close()


def spoils(deployment_id: str) -> Callable[[dict[str, Any]], None]:
    """What this deployment's container says of itself cannot be read."""

    def change(told: dict[str, Any]) -> None:
        if told["Config"]["Labels"].get(f"{LABEL}.deployment") == deployment_id:
            told["State"]["StartedAt"] = "some time ago"

    return change


async def test_a_start_whose_answer_cannot_be_read_leaves_nothing(
    site: PodmanSite, service: Path, image: Artifact
) -> None:
    spoiled, sound = site.workload(image, WAITS), site.workload(image, WAITS)
    with newer_podman(site.folder / "newer.sock", service, spoils(spoiled.deployment_id)) as url:
        agent = await agent_behind(site, url)
        try:
            await agent.prepare(spoiled, ignore)
            with pytest.raises(ValueError, match="some time ago"):
                await agent.start(spoiled)
            assert spoiled.name not in await site.device.run("podman", "ps", "-a", "--format", "{{.Names}}")
            handle = await agent.start(sound)
            assert [seen.handle for seen in await agent.list()] == [handle]
            await agent.remove(handle)
        finally:
            await agent.close()


async def test_a_container_that_cannot_be_read_hides_no_other(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, WAITS)
    await machine.backend.prepare(workload, ignore)
    # Carries the owner's label and none of the others.
    made = ["podman", "create", "--label", f"{LABEL}.owner={machine.owner}", image.reference]
    odd = (await machine.site.device.run(*made)).strip()
    try:
        handle = await machine.backend.start(workload)
        assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(handle, Phase.RUNNING)]
        await machine.restart_agent()
        assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(handle, Phase.RUNNING)]
        assert odd in await machine.site.device.run("podman", "ps", "-a", "--no-trunc", "--format", "{{.ID}}")
    finally:
        await machine.site.device.run("podman", "rm", "-f", odd)


def chooses_no_cores(told: dict[str, Any]) -> None:
    """As without root, where systemd delegates no cpuset."""
    told["host"]["cgroupControllers"].remove("cpuset")


async def test_a_share_is_kept_where_podman_can_choose_no_cores(
    site: PodmanSite, service: Path, image: Artifact
) -> None:
    workload = replace(site.workload(image, WAITS), resources=Resources(cpu_millis=500))
    with newer_podman(site.folder / "newer.sock", service, chooses_no_cores, INFO) as url:
        agent = await agent_behind(site, url)
        try:
            await agent.prepare(workload, ignore)
            handle = await agent.start(workload)
            told = json.loads(await site.device.run("podman", "inspect", handle.value))[0]["HostConfig"]
            assert (told["CpusetCpus"], told["CpuQuota"] / told["CpuPeriod"]) == ("", 0.5)
            await agent.remove(handle)
        finally:
            await agent.close()
