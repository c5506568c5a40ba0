"""The simulated devices that other tests stand on: apart from each other, cut off at will, and gone afterwards."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support import device_cgroups
from tests.support.device_network import NAMESPACES
from tests.support.devices import SimulatedDevice

pytestmark = pytest.mark.podman


async def test_device_has_its_own_processes_name_and_address(tmp_path: Path) -> None:
    async with SimulatedDevice(tmp_path / "a") as first, SimulatedDevice(tmp_path / "b") as second:
        assert (await first.run("hostname")).strip() == first.name != second.name
        assert first.address in await first.run("ip", "-4", "addr")
        assert (await first.run("cat", "/proc/1/comm")).strip() == "catatonit"
        assert (await first.run("podman", "ps", "-aq")).strip() == ""


async def test_power_cut_ends_every_process_and_keeps_what_is_stored(tmp_path: Path) -> None:
    async with SimulatedDevice(tmp_path / "a") as device:
        process = device.popen(["sleep", "1000"])
        await device.run("sh", "-c", "echo kept > /var/lib/containers/file; echo lost > /run/file")
        await device.power_cut()
        assert process.wait() != 0
        assert not device.running
        await device.boot()
        assert (await device.run("cat", "/var/lib/containers/file")).strip() == "kept"
        with pytest.raises(AssertionError, match="No such file"):
            await device.run("cat", "/run/file")


async def test_pulled_cable_cuts_the_device_off_until_it_is_back(tmp_path: Path) -> None:
    async with SimulatedDevice(tmp_path / "a") as device:
        with socket.create_server((device.gateway, 0)) as server:
            port = server.getsockname()[1]
            reach = ["curl", "-s", "--connect-timeout", "0.5", "-m", "1", f"telnet://{device.gateway}:{port}"]
            await device.link(up=False)
            with pytest.raises(AssertionError, match="ended with 28"):
                await device.run(*reach)
            await device.link(up=True)
            accepting = asyncio.create_task(asyncio.to_thread(server.accept))
            with pytest.raises(AssertionError, match="ended with 28"):
                await device.run(*reach)
            connection, (host, _) = await accepting
            connection.close()
            assert host == device.address


async def test_nothing_of_a_device_is_left(tmp_path: Path) -> None:
    async with SimulatedDevice(tmp_path / "a") as device:
        device.popen(["sleep", "1000"])
        assert (NAMESPACES / device.name).exists()
    assert not (NAMESPACES / device.name).exists()
    assert not Path("/sys/class/net", device.name).exists()
    assert not any(folder.exists() for folder in device_cgroups.folders(device.name))
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not (tmp_path / "a").exists()
