"""The real parts of tests of the virtualenv backend: a simulated device, a registry with bundles, agents' backends."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, ArtifactKind
from tests.support.async_waiting import until_holds
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.device_machine import DeviceMachine, DeviceSite
from tests.support.devices import SimulatedDevice
from tests.support.remote_backend import VirtualenvOptions

REPOSITORY = "alice/vision/digits"


@dataclass
class VirtualenvSite(DeviceSite):
    """A registry with bundles beside the device."""

    shop: BundleShop

    def options(self, owner: str) -> VirtualenvOptions:
        user, password = self.shop.registry.device_credentials(owner)
        return VirtualenvOptions(owner, self.folder / owner, user, password, self.shop.registry.ca_file)

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

    async def fresh_artifact(self) -> Artifact:
        return await self.bundle()


@asynccontextmanager
async def virtualenv_site(
    folder: Path, wheels: Mapping[str, bytes], *, systemd: bool = False
) -> AsyncIterator[VirtualenvSite]:
    """A booted device and a registry that it reaches, until the block ends."""
    async with (
        SimulatedDevice(folder / "device", systemd=systemd) as device,
        open_bundle_shop(folder, wheels, host=device.gateway) as shop,
    ):
        if systemd:
            await until_up(device)
        shop.registry.pullable.add(REPOSITORY)
        yield VirtualenvSite(folder, device, itertools.count(1), shop)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def until_up(device: SimulatedDevice) -> None:
    """Returns as soon as systemd answers in the device."""

    async def answers() -> bool:
        # It fails while units start, as it does before anybody listens.
        return "running" in await device.run("sh", "-c", "systemctl is-system-running 2>&1 || true")

    await until_holds(answers)


@asynccontextmanager
async def systemd_deaf(device: SimulatedDevice) -> AsyncIterator[None]:
    """Within the block nobody reaches systemd."""
    await device.run("mv", "/run/systemd/private", "/run/systemd/hidden")
    try:
        yield
    finally:
        await device.run("mv", "/run/systemd/hidden", "/run/systemd/private")


class VirtualenvMachine(DeviceMachine[VirtualenvSite]):
    """Whose instances are processes."""

    @property
    def state(self) -> Path:
        return self.site.folder / self.owner

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        """The agent's disk can only be read."""
        self.state.mkdir(exist_ok=True)
        state = str(self.state)
        await self.site.device.run("mount", "--bind", state, state)
        # Not while the agent writes, which it may do for a moment after a start.
        await until_holds(lambda: self._remounted(state))
        try:
            yield
        finally:
            await self.site.device.run("umount", "--lazy", state)

    async def _remounted(self, state: str) -> bool:
        script = 'mount -o remount,bind,ro "$0" 2>&1 || true'
        return "busy" not in await self.site.device.run("sh", "-c", script, state)

    @asynccontextmanager
    async def no_sandbox(self) -> AsyncIterator[None]:
        """Within the block bubblewrap cannot be run on the device, and its agent has found that."""
        await self.site.device.run("sh", "-ec", "touch /run/nothing; mount --bind /run/nothing /usr/bin/bwrap")
        await self.restart_agent()
        try:
            yield
        finally:
            await self.site.device.run("umount", "/usr/bin/bwrap")

    def started(self, handle: Handle) -> dict[str, Any]:
        """What was noted of an instance's processes."""
        return dict(json.loads((self.state / "instances" / handle.value / "started").read_text()))

    async def kill(self, handle: Handle) -> None:
        await self.site.device.run("kill", "-9", str(self.started(handle)["pid"]))
