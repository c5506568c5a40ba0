"""CNCF Distribution (Debian: docker-registry) as a child process: TLS, and the registry's standard token protocol.

Configuration: https://distribution.github.io/distribution/about/configuration/ ; it trusts tokens that the controller
signs (`controller.web.registry_tokens`). It knows their key by name, so that not each request of its clients has to
bear the certificate: version 2 by the certificate, version 3 by `jwks`, which version 2 passes over.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from controller.local.process import END_WITH_PARENT, ChildProcess, StartFailed
from controller.local.server import LocalServer
from controller.pki import CertificateAuthority
from controller.web.registry_tokens import SHORT, key_set

# Seconds that it may take to answer again: where it is not given them, nobody can pull.
RESTART_DEADLINE = 120.0
# Where its storage driver for files has what was pushed.
BLOBS = Path("docker/registry/v2/blobs")
KEYS = "token-keys.json"


class LocalRegistry(LocalServer):
    """A registry on this machine. `token_realm` is the URL of the controller's token endpoint, `token_certificate`
    the file of the certificate whose key signs the tokens."""

    def __init__(
        self,
        folder: Path,
        ca: CertificateAuthority,
        token_realm: str,
        token_certificate: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        names: Sequence[str] = (),
        listen: str = "",
    ) -> None:
        super().__init__(folder, ca, host, port, names, listen)
        self._token_realm = token_realm
        self._token_certificate = token_certificate
        self._read_only = False

    async def collect_garbage(self) -> None:
        """Afterwards what no manifest names is gone from the disk; meanwhile it only lets pull. Raises StartFailed:
        then it may not run.

        A push meanwhile would lose blobs: https://distribution.github.io/distribution/about/garbage-collection/
        """
        if not (self._folder / "data" / BLOBS).exists():
            # Nothing was ever pushed to its end; asked to collect then, it fails.
            return
        async with self._changing:
            try:
                await self._restart(read_only=True)
                await _run([_program(), "garbage-collect", str(self._folder / "registry.yml")], self._folder)
            finally:
                await asyncio.shield(self._restart(read_only=False))

    async def _restart(self, *, read_only: bool) -> None:
        self._read_only = read_only
        await self._stop()
        await self._start(RESTART_DEADLINE)

    def _configured(self) -> ChildProcess:
        program = _program()
        self._certified("registry")
        self._written(KEYS, key_set(self._token_certificate))
        configuration = self._written("registry.yml", yaml.safe_dump(self._settings()))
        return ChildProcess([program, "serve", str(configuration)], self._folder / "registry.log", env={})

    def _settings(self) -> dict[str, Any]:
        token = {
            "realm": self._token_realm + SHORT,
            "service": self.address,
            "issuer": "longshore",
            "rootcertbundle": str(self._token_certificate),
            "jwks": str(self._folder / KEYS),
        }
        tls = {"certificate": str(self._folder / "registry.crt"), "key": str(self._folder / "registry.key")}
        return {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._folder / "data")},
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": self._read_only}},
            },
            "http": {"addr": self.listen, "tls": tls, "headers": {"X-Content-Type-Options": ["nosniff"]}},
            "auth": {"token": token},
        }


def _program() -> str:
    program = shutil.which("docker-registry")
    if program is None:
        raise StartFailed("docker-registry is not installed; install the package docker-registry")
    return program


async def _run(argv: Sequence[str], folder: Path) -> None:
    """Runs a program to its end; a cancel ends it. Raises StartFailed."""
    with (folder / "registry.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *END_WITH_PARENT, *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={}
        )
    try:
        code = await process.wait()
    except BaseException:
        process.kill()
        await asyncio.shield(process.wait())
        raise
    if code != 0:
        raise StartFailed(f"{argv[0]} {argv[1]} ended with {code}; see {folder / 'registry.log'}")
