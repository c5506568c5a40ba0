"""Podman 5 on a device with control groups v2 alone, and crun. Here the kernel gives no controller to version 2, since
version 1 has them all: what is seen is how groups are found there, and what holds without any limit."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import Unsupported
from edge_agent.runtime.model import Artifact, Resources
from tests.contract.machine import await_observed, find, has_ended, ignore
from tests.integration.podman_fixtures import image, machine
from tests.support.device_cgroups import Cgroups
from tests.support.device_root import DeviceRoot, debian_with_podman
from tests.support.podman_machine import PodmanMachine, PodmanSite, podman_site, until

__all__ = ["image", "machine"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-cgroups"),
    pytest.mark.asyncio(loop_scope="module"),
]
WORKS = "trap 'exit 3' TERM; while :; do n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 0.1; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanSite]:
    root = DeviceRoot(await debian_with_podman("trixie"))
    async with podman_site(tmp_path_factory.mktemp("site"), root=root, cgroups=Cgroups.V2) as made:
        yield made


async def test_an_instance_in_a_group_of_version_2_is_known_counted_and_stopped(
    machine: PodmanMachine, image: Artifact
) -> None:
    workload = machine.site.workload(image, WORKS)
    await machine.backend.prepare(workload, ignore)
    handle = await machine.backend.start(workload)
    assert (await machine.podman("inspect", "--format", "{{.OCIRuntime}}", handle.value)) == "crun"
    group = await machine.site.device.run("cat", f"/proc/{await machine.inspect(handle, 'State.Pid')}/cgroup")
    (unified,) = [line for line in group.splitlines() if line.startswith("0::")]
    assert handle.value in unified

    async def worked() -> bool:
        return (await machine.backend.stats(handle)).cpu_millis > 0

    await until(worked)
    assert (await machine.backend.stats(handle)).memory_kib > 0
    await machine.restart_agent()
    assert await find(machine.backend, handle) is not None
    await machine.backend.stop(handle, 10)
    assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 3


async def test_limits_without_a_controller_are_refused(machine: PodmanMachine, image: Artifact) -> None:
    able = (await machine.backend.probe()).capabilities
    assert (able.cpu_limit, able.memory_limit, able.pids_limit, able.cpu_set, able.limits_by) == (*[False] * 4, "")
    workload = replace(machine.site.workload(image, WORKS), resources=Resources(pids=50))
    with pytest.raises(Unsupported, match="no limit of processes"):
        await machine.backend.start(workload)
