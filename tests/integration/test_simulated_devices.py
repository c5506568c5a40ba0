"""The simulated devices that other tests stand on: apart from each other, cut off at will, and gone afterwards."""

import asyncio
import functools
import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import device_cgroups
from tests.support.device_network import NAMESPACES
from tests.support.devices import SimulatedDevice
from tests.support.network_profiles import PROFILES
from tests.support.slow_link import SlowLink

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


async def test_what_comes_by_a_satellite_is_late_and_whole(tmp_path: Path) -> None:
    cable = SlowLink()
    async with SimulatedDevice(tmp_path / "a", cable=cable) as device:
        cable.set("satellite")
        (tmp_path / "content").write_bytes(content := os.urandom(100_000))
        with serving(tmp_path, device.gateway) as port:
            before = time.monotonic()
            reading = ["sh", "-c", f"curl -s http://{device.gateway}:{port}/content | sha256sum"]
            assert (await device.run(*reading)).split()[0] == hashlib.sha256(content).hexdigest()
            # To connect, and to ask: there and back each time.
            assert time.monotonic() - before > 2 * 2 * (PROFILES["satellite"].delay - PROFILES["satellite"].jitter)
        assert cable.count() > len(content)


async def test_link_that_goes_on_and_off_breaks_no_connection(tmp_path: Path) -> None:
    cable = SlowLink()
    async with SimulatedDevice(tmp_path / "a", cable=cable) as device:
        cable.set("on-off")
        # More than passes before it goes off.
        (tmp_path / "content").write_bytes(bytes(700_000))
        with serving(tmp_path, device.gateway) as port:
            assert await device.run("sh", "-c", f"curl -s http://{device.gateway}:{port}/content | wc -c") == "700000\n"
        cable.set("offline")
        with pytest.raises(AssertionError, match="ended with 28"):
            await device.run("curl", "-s", "-m", "1", f"http://{device.gateway}:{port}/content")


async def test_nothing_of_a_slow_link_is_left(tmp_path: Path) -> None:
    async with SimulatedDevice(tmp_path / "a", cable=SlowLink()) as device:
        assert Path("/sys/class/net", device.name).exists()
        await device.power_cut()
        await device.boot()
        assert device.address in await device.run("ip", "-4", "addr")
    assert not (NAMESPACES / device.name).exists()
    assert not Path("/sys/class/net", device.name).exists()


@contextmanager
def serving(folder: Path, host: str) -> Iterator[int]:
    """The files of the folder by HTTP, until the block ends; the port."""
    with http.server.ThreadingHTTPServer((host, 0), functools.partial(QuietFiles, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
