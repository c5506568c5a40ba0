"""CNCF Distribution (Debian: docker-registry) as a child process: TLS, and the registry's standard token protocol.

Configuration: https://distribution.github.io/distribution/about/configuration/ ; it trusts tokens that the controller
signs (`controller.web.registry_tokens`).
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from controller.local.process import ChildProcess, StartFailed, accepts_connections, free_port
from controller.pki import CertificateAuthority


class LocalRegistry:
    """A registry on this machine. `token_realm` is the URL of the controller's token endpoint."""

    def __init__(
        self,
        folder: Path,
        ca: CertificateAuthority,
        token_realm: str,
        token_certificate: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        names: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._ca = ca
        self._token_realm = token_realm
        self._token_certificate = token_certificate
        self.host = host
        self.port = port or free_port(host)
        self._names = [host, "localhost", *names]
        self._process: ChildProcess | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Afterwards it answers. Raises StartFailed."""
        program = shutil.which("docker-registry")
        if program is None:
            raise StartFailed("docker-registry is not installed; install the package docker-registry")
        self._configure()
        argv = [program, "serve", str(self._folder / "registry.yml")]
        self._process = ChildProcess(argv, self._folder / "registry.log", env={"OTEL_TRACES_EXPORTER": "none"})
        await self._process.start(lambda: accepts_connections(self.host, self.port))

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        if self._process is not None:
            await self._process.kill()

    async def __aenter__(self) -> "LocalRegistry":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.stop())

    def _configure(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not (self._folder / "registry.crt").exists():
            self._ca.issue_server(self._names).write(self._folder, "registry")
        token = {
            "realm": self._token_realm,
            "service": self.address,
            "issuer": "longshore",
            "rootcertbundle": str(self._token_certificate),
        }
        tls = {"certificate": str(self._folder / "registry.crt"), "key": str(self._folder / "registry.key")}
        settings = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.address, "tls": tls, "headers": {"X-Content-Type-Options": ["nosniff"]}},
            "auth": {"token": token},
        }
        (self._folder / "registry.yml").write_text(yaml.safe_dump(settings))
