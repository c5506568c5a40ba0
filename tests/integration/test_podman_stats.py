"""What containers are seen to use: each figure against what a program really did."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.runtime.backend import Handle, Stats
from edge_agent.runtime.model import Artifact, Mount, Port, Resources
from tests.contract.machine import launch
from tests.integration.podman_fixtures import image, machine, site
from tests.support.device_machine import connect_when_open
from tests.support.podman_machine import PodmanMachine, until

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-stats"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
MIB = 2**20


async def inside(machine: PodmanMachine, handle: Handle, script: str) -> None:
    result = await machine.backend.exec(handle, ["sh", "-c", script], 60)
    assert result.exit_code == 0, result.output.decode()


async def test_bytes_that_went_through_its_network_are_counted(machine: PodmanMachine, image: Artifact) -> None:
    serve = f"head -c {4 * MIB} /dev/zero > /tmp/zeros; httpd -p 8080 -h /tmp; {POLITE}"
    workload = machine.site.workload(image, serve, ports=(Port("http", 8080, await machine.free_port()),))
    handle = await launch(machine, workload)
    await connect_when_open(machine.site.device.address, workload.ports[0].host_port)

    async def served() -> bool:
        return await machine.backend.listens(handle, "http") is True

    await until(served)
    before = await machine.backend.stats(handle)
    url = f"http://{machine.site.device.address}:{workload.ports[0].host_port}/zeros"
    await machine.site.device.run("curl", "-sf", "-o", "/dev/null", url)
    after = await machine.backend.stats(handle)
    sent = after.network_sent_bytes - before.network_sent_bytes
    received = after.network_received_bytes - before.network_received_bytes
    assert 4 * MIB < sent < 5 * MIB
    assert 0 < received < MIB


async def test_network_of_the_device_itself_is_nobodys(machine: PodmanMachine, image: Artifact) -> None:
    workload = replace(machine.site.workload(image, POLITE), allow=frozenset({"host-network"}))
    stats = await machine.backend.stats(await launch(machine, workload))
    assert (stats.network_received_bytes, stats.network_sent_bytes) == (0, 0)


async def test_bytes_that_went_to_the_disk_are_counted(machine: PodmanMachine, image: Artifact, tmp_path: Path) -> None:
    if os.major(tmp_path.stat().st_dev) == 0:
        pytest.skip("the folder of the tests lies on no disk")
    tmp_path.chmod(0o777)
    writes = f"dd if=/dev/zero of=/data/file bs=1M count=8 conv=fsync 2>&1; touch /data/done; {POLITE}"
    workload = replace(machine.site.workload(image, writes), mounts=(Mount(str(tmp_path), "/data", read_only=False),))
    handle = await launch(machine, workload)

    async def done() -> bool:
        return (tmp_path / "done").exists()

    await until(done)
    assert 8 * MIB <= (await machine.backend.stats(handle)).block_written_bytes < 16 * MIB


async def test_memory_that_was_given_back_is_in_the_peak_only(machine: PodmanMachine, image: Artifact) -> None:
    workload = replace(machine.site.workload(image, POLITE), resources=Resources(memory_bytes=128 * MIB))
    handle = await launch(machine, workload)
    await inside(machine, handle, f"head -c {32 * MIB} /dev/zero | tail -c {32 * MIB} > /dev/null")
    found: list[Stats] = []

    async def given_back() -> bool:
        found.append(await machine.backend.stats(handle))
        return found[-1].memory_kib < 16 * 1024

    await until(given_back)
    assert 32 * 1024 <= found[-1].memory_peak_kib <= 128 * 1024
