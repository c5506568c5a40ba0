"""The real parts of Podman tests: a simulated device, a registry beside it, and agents' backends inside it."""

import asyncio
import itertools
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.runtime.backend import DeployBackend, Handle
from edge_agent.runtime.model import Artifact, Check, CommandProbe, Port, Workload
from tests.support.async_waiting import until_holds as until
from tests.support.devices import SimulatedDevice
from tests.support.registry import RegistryUnderTest, running_registry
from tests.support.remote_backend import PodmanOptions, RemoteBackend
from tests.support.tiny_images import Registry, push_tiny

__all__ = ["PodmanMachine", "PodmanSite", "connect_when_open", "podman_site", "until"]
REPOSITORY = "alice/tiny"


@dataclass
class PodmanSite:
    """What tests of one module share. `folder` is theirs."""

    folder: Path
    device: SimulatedDevice
    registry: RegistryUnderTest
    numbers: "itertools.count[int]"

    def options(self, owner: str) -> PodmanOptions:
        user, password = self.registry.device_credentials(owner)
        return PodmanOptions(owner, self.folder / owner, user, password, self.registry.ca_file)

    async def agent(self, owner: str) -> RemoteBackend:
        """A backend in a process of its own on the device."""
        return await RemoteBackend.launch(self.device.command, self.options(owner))

    async def image(self, *, architecture: str = "amd64", extra_bytes: int = 0, stop_signal: str = "") -> Artifact:
        """An image that nothing else uses."""
        place = Registry(self.registry.address, self.registry.push_credentials(), self.registry.ca_file)
        label = f"image-{next(self.numbers)}"
        return await asyncio.to_thread(
            push_tiny, place, REPOSITORY, architecture=architecture, label=label,
            extra_bytes=extra_bytes, stop_signal=stop_signal,
        )  # fmt: skip

    def workload(self, artifact: Artifact, script: str, *, ports: tuple[Port, ...] = ()) -> Workload:
        """A deployment of its own that runs `script` in a shell."""
        name = f"deployment-{next(self.numbers)}"
        command = ("sh", "-c", script)
        return Workload(
            name, 1, name, "alice", "demo", artifact, Check(CommandProbe(("true",))), entrypoint=command, ports=ports
        )  # fmt: skip


@asynccontextmanager
async def podman_site(folder: Path) -> AsyncIterator[PodmanSite]:
    """A booted device and a registry that it reaches, until the block ends."""
    async with SimulatedDevice(folder / "device") as device:
        (folder / "registry").mkdir()
        async with running_registry(folder / "registry", device.gateway) as registry:
            registry.pullable.add(REPOSITORY)
            yield PodmanSite(folder, device, registry, itertools.count(1))
    # Images of many megabytes that nobody looks at any more.
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class PodmanMachine:
    """One owner's part of a site; `close` ends its instances."""

    def __init__(self, site: PodmanSite, owner: str) -> None:
        self.site = site
        self.owner = owner
        self._agent: RemoteBackend | None = None

    @property
    def backend(self) -> DeployBackend:
        assert self._agent is not None
        return self._agent

    async def open(self) -> None:
        self._agent = await self.site.agent(self.owner)

    async def close(self) -> None:
        for seen in await self.backend.list():
            await self.backend.remove(seen.handle)
        await self.close_agent()

    async def close_agent(self) -> None:
        """The agent ends; its instances run on."""
        assert self._agent is not None
        await self._agent.close()

    async def restart_agent(self) -> None:
        assert self._agent is not None
        await self._agent.kill()
        await self.open()

    async def fresh_image(self, workload: Workload) -> Workload:
        return replace(workload, artifact=await self.site.image())

    @asynccontextmanager
    async def other_owner(self) -> AsyncIterator[DeployBackend]:
        other = await self.site.agent(f"{self.owner}-other")
        try:
            yield other
        finally:
            await other.close()

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        """Podman's service is killed, and the program fails."""
        await self.site.device.run("mount", "--bind", "/bin/false", "/usr/bin/podman")
        try:
            await self.kill_service()
            yield
        finally:
            await self.site.device.run("umount", "/usr/bin/podman")

    async def service_pids(self) -> list[str]:
        """Of this owner's Podman service; pids as the device sees them."""
        script = f"pgrep -f -- '^[^ ]*podman system service.*/{self.owner}/podman.sock' || true"
        return (await self.site.device.run("sh", "-c", script)).split()

    async def kill_service(self) -> None:
        for pid in await self.service_pids():
            await self.site.device.run("kill", "-9", pid)

    async def inspect(self, handle: Handle, field: str) -> str:
        return (await self.site.device.run("podman", "inspect", "--format", f"{{{{.{field}}}}}", handle.value)).strip()

    async def kill(self, handle: Handle) -> None:
        await self.site.device.run("kill", "-9", await self.inspect(handle, "State.Pid"))

    async def free_port(self) -> int:
        return 21000 + next(self.site.numbers)

    @asynccontextmanager
    async def taken_port(self) -> AsyncIterator[int]:
        port = await self.free_port()
        async with taken_port(self.site.device, port):
            yield port


@asynccontextmanager
async def taken_port(device: SimulatedDevice, port: int) -> AsyncIterator[None]:
    """Within the block something on the device listens at this port."""
    program = f"import socket, signal; s = socket.create_server(('', {port})); signal.pause()"
    holder = device.popen([sys.executable, "-c", program])
    try:
        await connect_when_open(device.address, port)
        yield
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        # Its program, which that process only brought into the device, may end a moment later.
        await refused(device.address, port)


async def refused(host: str, port: int) -> None:
    """Returns as soon as nothing accepts connections there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                return
            writer.transport.abort()
            await asyncio.sleep(0.01)


async def connect_when_open(host: str, port: int) -> None:
    """Returns as soon as something accepts connections there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                return
