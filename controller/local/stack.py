"""A whole controller side on this machine: registry, broker and controller as child processes on free ports."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from controller.local.broker import LocalBroker
from controller.local.process import ChildProcess, accepts_connections, free_port
from controller.local.registry import LocalRegistry
from controller.pki import CertificateAuthority
from controller.settings import Broker, Builds, Devices, Endpoint, Registry, Settings, split
from controller.setup import DataFolder, set_up


class LocalStack:
    """`async with LocalStack(folder) as stack:` — afterwards nothing of it runs. `host` is an address of this
    machine, under which devices reach it; `env` is added to the controller's environment."""

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        builds: Builds | None = None,
        env: Mapping[str, str] | None = None,
        min_free_mib: int = 256,
        devices: Devices | None = None,
    ) -> None:
        self.folder = DataFolder(root)
        self.host = host
        self.settings = Settings(
            public=self._endpoint(),
            agents=self._endpoint(),
            web=self._endpoint(),
            broker=Broker(address=f"{host}:{free_port(host)}"),
            registry=Registry(address=f"{host}:{free_port(host)}"),
            builds=builds or Builds(),
            min_free_mib=min_free_mib,
            devices=devices or Devices(),
        )
        set_up(root, self.settings)
        self.ca = CertificateAuthority.load(self.folder.ca)
        self.broker = LocalBroker(root / "broker", self.ca, *split(self.settings.broker.address))
        realm = f"https://{self.settings.web.address}/registry/token"
        trusted = self.folder.registry_tokens / "ca.crt"
        self.registry = LocalRegistry(
            root / "registry", self.ca, realm, trusted, *split(self.settings.registry.address)
        )
        argv = [sys.executable, "-m", "controller.admin", "serve", "--data-dir", str(root)]
        self.controller = ChildProcess(argv, root / "controller.log", env={**os.environ, **(env or {})})

    @property
    def context_file(self) -> Path:
        """For the `longshore` command: the administrator's."""
        return self.folder.admin_context

    @property
    def ca_file(self) -> Path:
        return self.folder.ca / "ca.crt"

    async def start(self) -> None:
        """Afterwards all parts answer. Raises StartFailed; then nothing of it runs."""
        try:
            await asyncio.gather(self.broker.start(), self.registry.start(), self.start_controller())
        except BaseException:
            await self.stop()
            raise

    async def start_controller(self) -> None:
        """Starts the controller (again). Afterwards it answers on all its ports."""
        addresses = [split(e.address) for e in (self.settings.public, self.settings.agents, self.settings.web)]
        await self.controller.start(lambda: all(accepts_connections(*address) for address in addresses))

    async def stop(self) -> None:
        """Nothing of it runs any more. Idempotent."""
        await self.controller.stop()
        await asyncio.gather(self.broker.stop(), self.registry.stop())

    async def __aenter__(self) -> "LocalStack":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self.stop())

    def _endpoint(self) -> Endpoint:
        address = f"{self.host}:{free_port(self.host)}"
        return Endpoint(listen=address, address=address)
