"""The real parts of Podman tests: a simulated device, a registry beside it, and agents' backends inside it."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact
from tests.support.async_waiting import until_holds as until
from tests.support.device_cgroups import Cgroups
from tests.support.device_machine import DeviceMachine, DeviceSite
from tests.support.device_root import DeviceRoot
from tests.support.devices import SimulatedDevice
from tests.support.registry import RegistryUnderTest, running_registry
from tests.support.remote_backend import PodmanOptions
from tests.support.tiny_images import Registry, push_tiny

__all__ = ["PodmanMachine", "PodmanSite", "podman_site", "until"]
REPOSITORY = "alice/tiny"


@dataclass
class PodmanSite(DeviceSite):
    """A registry with images beside the device."""

    registry: RegistryUnderTest

    def options(self, owner: str) -> PodmanOptions:
        user, password = self.registry.device_credentials(owner)
        environment = self.device.python_environment
        return PodmanOptions(owner, self.folder / owner, user, password, self.registry.ca_file, environment=environment)

    async def image(
        self, *, architecture: str = "amd64", extra_bytes: int = 0, below_bytes: int = 0, stop_signal: str = ""
    ) -> Artifact:
        """An image that nothing else uses."""
        place = Registry(self.registry.address, self.registry.push_credentials(), self.registry.ca_file)
        label = f"image-{next(self.numbers)}"
        return await asyncio.to_thread(
            push_tiny, place, REPOSITORY, architecture=architecture, label=label,
            extra_bytes=extra_bytes, below_bytes=below_bytes, stop_signal=stop_signal,
        )  # fmt: skip

    async def fresh_artifact(self) -> Artifact:
        return await self.image()


@asynccontextmanager
async def podman_site(
    folder: Path, *, root: DeviceRoot | None = None, cgroups: Cgroups = Cgroups.OURS
) -> AsyncIterator[PodmanSite]:
    """A booted device and a registry that it reaches, until the block ends."""
    async with SimulatedDevice(folder / "device", root=root, cgroups=cgroups) as device:
        (folder / "registry").mkdir()
        async with running_registry(folder / "registry", device.gateway) as registry:
            registry.pullable.add(REPOSITORY)
            yield PodmanSite(folder, device, itertools.count(1), registry)
    # Images of many megabytes that nobody looks at any more.
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class PodmanMachine(DeviceMachine[PodmanSite]):
    """Whose instances are containers."""

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

    async def podman(self, *argv: str) -> str:
        """Its output, without warnings: Podman 5 has some of what it will not do any more."""
        return (await self.site.device.run("podman", "--log-level=error", *argv)).strip()

    async def inspect(self, handle: Handle, field: str) -> str:
        return await self.podman("inspect", "--format", f"{{{{.{field}}}}}", handle.value)

    async def kill(self, handle: Handle) -> None:
        await self.site.device.run("kill", "-9", await self.inspect(handle, "State.Pid"))
