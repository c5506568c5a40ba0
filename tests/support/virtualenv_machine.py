"""The real parts of tests of the virtualenv backend: a simulated device, a registry with bundles, agents' backends."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.runtime.backend import DeployBackend, Handle
from edge_agent.runtime.model import Artifact, ArtifactKind, Check, CommandProbe, Port, Workload
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.devices import SimulatedDevice
from tests.support.podman_machine import taken_port
from tests.support.remote_backend import RemoteBackend, VirtualenvOptions

REPOSITORY = "alice/vision/digits"


@dataclass
class VirtualenvSite:
    """What tests of one module share. `folder` is theirs."""

    folder: Path
    device: SimulatedDevice
    shop: BundleShop
    numbers: "itertools.count[int]"

    def options(self, owner: str) -> VirtualenvOptions:
        user, password = self.shop.registry.device_credentials(owner)
        return VirtualenvOptions(owner, self.folder / owner, user, password, self.shop.registry.ca_file)

    async def agent(self, owner: str) -> RemoteBackend:
        """A backend in a process of its own on the device."""
        return await RemoteBackend.launch(self.device.command, self.options(owner))

    async def bundle(
        self, files: Mapping[str, bytes] | None = None, *, profile: str = "x86-cpu", **spec: Any
    ) -> Artifact:
        """A bundle that nothing else uses."""
        number = next(self.numbers)
        contents = {"number.txt": str(number).encode(), **(files or {})}
        uploaded = [await self.shop.upload(name, content) for name, content in contents.items()]
        result = await self.shop.build(self.shop.job(f"b-{number}", spec, uploaded, profile=profile))
        assert result.artifact is not None, result
        made = result.artifact
        return Artifact(made.repository, made.digest, made.platform, ArtifactKind.BUNDLE)

    def workload(self, artifact: Artifact, script: str, *, ports: tuple[Port, ...] = ()) -> Workload:
        """A deployment of its own that runs `script` in a shell."""
        name = f"deployment-{next(self.numbers)}"
        command = ("sh", "-c", script)
        return Workload(
            name, 1, name, "alice", "demo", artifact, Check(CommandProbe(("true",))), entrypoint=command, ports=ports
        )  # fmt: skip


@asynccontextmanager
async def virtualenv_site(folder: Path, wheels: Mapping[str, bytes]) -> AsyncIterator[VirtualenvSite]:
    """A booted device and a registry that it reaches, until the block ends."""
    async with (
        SimulatedDevice(folder / "device") as device,
        open_bundle_shop(folder, wheels, host=device.gateway) as shop,
    ):
        shop.registry.pullable.add(REPOSITORY)
        yield VirtualenvSite(folder, device, shop, itertools.count(1))
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class VirtualenvMachine:
    """One owner's part of a site; `close` ends its instances."""

    def __init__(self, site: VirtualenvSite, owner: str) -> None:
        self.site = site
        self.owner = owner
        self._agent: RemoteBackend | None = None

    @property
    def backend(self) -> DeployBackend:
        assert self._agent is not None
        return self._agent

    @property
    def state(self) -> Path:
        return self.site.folder / self.owner

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
        return replace(workload, artifact=await self.site.bundle())

    @asynccontextmanager
    async def other_owner(self) -> AsyncIterator[DeployBackend]:
        other = await self.site.agent(f"{self.owner}-other")
        try:
            yield other
        finally:
            await other.close()

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        """The agent's disk can only be read."""
        self.state.mkdir(exist_ok=True)
        state = str(self.state)
        await self.site.device.run("mount", "--bind", state, state)
        await self.site.device.run("mount", "-o", "remount,bind,ro", state)
        try:
            yield
        finally:
            await self.site.device.run("umount", "--lazy", state)

    def started(self, handle: Handle) -> dict[str, Any]:
        """What was noted of an instance's processes."""
        return dict(json.loads((self.state / "instances" / handle.value / "started").read_text()))

    async def kill(self, handle: Handle) -> None:
        await self.site.device.run("kill", "-9", str(self.started(handle)["pid"]))

    async def free_port(self) -> int:
        return 21000 + next(self.site.numbers)

    @asynccontextmanager
    async def taken_port(self) -> AsyncIterator[int]:
        port = await self.free_port()
        async with taken_port(self.site.device, port):
            yield port
