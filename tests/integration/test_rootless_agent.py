"""An agent of a user without rights: what it cannot have is said and refused, and all else holds."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import BackendError, Unsupported
from edge_agent.runtime.model import Artifact, Resources
from tests.contract.machine import await_observed, find, has_ended, ignore
from tests.integration.podman_fixtures import image
from tests.support.podman_machine import until
from tests.support.rootless_podman import HOME, RootlessMachine, RootlessSite, as_user, rootless_site

__all__ = ["image"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("rootless-agent"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 3' TERM; while :; do sleep 1000 & wait; done"
HOGS = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); while :; do sleep 1000 & wait; done"
MEBIBYTE = 2**20
DOCTOR = f"""
import asyncio, json
from pathlib import Path
from edge_agent.podman.backend import PodmanBackend
from edge_agent.podman.doctor import examine

async def credentials():
    return "", ""

async def main():
    backend = PodmanBackend("doctor", Path("{HOME}/doctor"), credentials, None)
    found = await examine(backend)
    await backend.close()
    print(json.dumps([str(finding) for finding in found]))

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RootlessSite]:
    async with rootless_site(tmp_path_factory.mktemp("site"), "trixie") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: RootlessSite) -> AsyncIterator[RootlessMachine]:
    async with RootlessMachine(site, f"agent-{next(site.numbers)}") as made:
        yield made


async def test_limits_that_cannot_be_kept_are_no_capabilities_and_are_refused(
    machine: RootlessMachine, image: Artifact
) -> None:
    able = (await machine.backend.probe()).capabilities
    assert (able.cpu_limit, able.memory_limit, able.pids_limit, able.cpu_set, able.limits_by) == (*[False] * 4, "")
    wishes = {
        "CPU time": Resources(cpu_millis=500),
        "memory": Resources(memory_bytes=64 * MEBIBYTE),
        "processes": Resources(pids=50),
        "cores": Resources(cpu_set="0"),
    }
    for name, resources in wishes.items():
        with pytest.raises(Unsupported, match=f"has no .*{name}"):
            await machine.backend.prepare(replace(machine.site.workload(image, POLITE), resources=resources), ignore)


async def test_doctor_names_the_limits_that_cannot_be_kept_and_how_to_have_them(
    machine: RootlessMachine, site: RootlessSite
) -> None:
    command = as_user([site.device.python, "-c", DOCTOR], site.device.python_environment)
    found = json.loads((await site.device.run(*command)).splitlines()[-1])
    (said,) = [finding for finding in found if "limits" in finding]
    assert "CPU, memory, pids cannot be kept" in said
    assert "delegate the controllers" in said
    assert not [finding for finding in found if "subuid" in finding or "tun" in finding]


async def test_an_instance_is_known_and_stopped_without_a_control_group_of_its_own(
    machine: RootlessMachine, image: Artifact
) -> None:
    workload = machine.site.workload(image, POLITE)
    await machine.backend.prepare(workload, ignore)
    handle = await machine.backend.start(workload)
    groups = await machine.site.device.run("cat", f"/proc/{await machine.inspect(handle, 'State.Pid')}/cgroup")
    assert handle.value not in groups
    await machine.restart_agent()
    before = await find(machine.backend, handle)
    with pytest.raises(BackendError, match="ran longer"):
        await machine.backend.exec(handle, ["sleep", "1000"], 0.5)
    assert await find(machine.backend, handle) == before
    await machine.backend.stop(handle, 10)
    assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 3


async def test_what_an_instance_uses_is_not_that_of_others(machine: RootlessMachine, image: Artifact) -> None:
    small, large = (machine.site.workload(image, script) for script in (POLITE, HOGS))
    await machine.backend.prepare(small, ignore)
    modest, hog = [await machine.backend.start(workload) for workload in (small, large)]

    async def grown() -> bool:
        return (await machine.backend.stats(hog)).memory_kib > 50_000

    await until(grown)
    assert 0 < (await machine.backend.stats(modest)).memory_kib < 20_000
