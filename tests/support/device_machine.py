"""What tests of a backend on a simulated device share, whichever backend it is."""

import asyncio
import itertools
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

from edge_agent.runtime.backend import DeployBackend, Handle
from edge_agent.runtime.model import Artifact, Check, CommandProbe, Port, Workload
from tests.support.devices import SimulatedDevice
from tests.support.remote_backend import BackendOptions, RemoteBackend


@dataclass
class DeviceSite(ABC):
    """What tests of one module share. `folder` is theirs."""

    folder: Path
    device: SimulatedDevice
    numbers: "itertools.count[int]"

    @abstractmethod
    def options(self, owner: str) -> BackendOptions: ...

    @abstractmethod
    async def fresh_artifact(self) -> Artifact:
        """One that nothing else uses."""

    async def agent(self, owner: str) -> RemoteBackend:
        """A backend in a process of its own on the device."""
        return await RemoteBackend.launch(self.command, self.options(owner))

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program of ours on the device, by the Python that is there."""
        return self.device.command([self.device.python, *argv[1:]])

    def workload(self, artifact: Artifact, script: str, *, ports: tuple[Port, ...] = ()) -> Workload:
        """A deployment of its own that runs `script` in a shell."""
        name = f"deployment-{next(self.numbers)}"
        command = ("sh", "-c", script)
        return Workload(
            name, 1, name, "alice", "demo", artifact, Check(CommandProbe(("true",))), entrypoint=command, ports=ports
        )  # fmt: skip


SiteT = TypeVar("SiteT", bound=DeviceSite)


class DeviceMachine(ABC, Generic[SiteT]):
    """One owner's part of a site; as a context manager it is open inside, and nothing of it runs afterwards."""

    def __init__(self, site: SiteT, owner: str) -> None:
        self.site = site
        self.owner = owner
        self._agent: RemoteBackend | None = None

    @abstractmethod
    def engine_down(self) -> AbstractAsyncContextManager[None]:
        """Within the block the backend cannot do its work."""

    @abstractmethod
    async def kill(self, handle: Handle) -> None:
        """The instance dies, as if by itself."""

    @property
    def backend(self) -> DeployBackend:
        assert self._agent is not None
        return self._agent

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self._agent = await self.site.agent(self.owner)

    async def close(self) -> None:
        """Ends its instances, and the agent."""
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
        return replace(workload, artifact=await self.site.fresh_artifact())

    @asynccontextmanager
    async def other_owner(self) -> AsyncIterator[DeployBackend]:
        other = await self.site.agent(f"{self.owner}-other")
        try:
            yield other
        finally:
            await other.close()

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
    holder = device.popen([device.python, "-c", program])
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
