"""Bundles on devices of every kind: fresh ones, without a sandbox, with an agent that is not root."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, Workload
from tests.contract.machine import await_lines, ignore
from tests.support.virtualenv_machine import VirtualenvMachine, VirtualenvSite, virtualenv_site

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-hosts"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualenvSite]:
    async with virtualenv_site(tmp_path_factory.mktemp("site"), {}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(site: VirtualenvSite) -> Artifact:
    return await site.bundle({"main.py": b"print('here')\n"})


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: VirtualenvSite) -> AsyncIterator[VirtualenvMachine]:
    made = VirtualenvMachine(site, f"owner-{next(site.numbers)}")
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def launch(machine: VirtualenvMachine, workload: Workload) -> Handle:
    await machine.backend.prepare(workload, ignore)
    return await machine.backend.start(workload)


async def test_device_with_an_empty_opt_runs_bundles(machine: VirtualenvMachine, artifact: Artifact) -> None:
    device = machine.site.device
    await device.run("mount", "-t", "tmpfs", "none", "/opt")
    try:
        handle = await launch(machine, machine.site.workload(artifact, f"ls /opt; python main.py; {POLITE}"))
        *found, said = await await_lines(machine.backend, handle, 3)
        assert (found, said) == (["longshore", "venv"], "here")
    finally:
        await device.run("umount", "--lazy", "/opt")
