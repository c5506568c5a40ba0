"""Packages in a folder behind TLS, as repositories of dnf and apk are; `asked` counts requests by file name."""

import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from controller.pki import CertificateAuthority


@dataclass
class PackageFolder:
    """What lies below `folder`, for clients that trust `ca_file`. While `deaf`, it hangs up on everyone."""

    folder: Path
    ca_file: Path
    port: int = 0
    deaf: bool = False
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.deaf and request.transport is not None:
            request.transport.abort()
        path = self.folder / request.path.lstrip("/")
        self.asked[path.name] += 1
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)


@asynccontextmanager
async def running_package_folder(folder: Path) -> AsyncIterator[PackageFolder]:
    """Serves `folder`/packages, which may be made later."""
    ca = CertificateAuthority.create(folder / "ca")
    certificate, key = ca.issue_server(["127.0.0.1"]).write(folder, "packages")
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(certificate, key)
    packages = PackageFolder(folder / "packages", folder / "ca" / "ca.crt")
    application = web.Application()
    application.router.add_get("/{path:.*}", packages.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust).start()
    packages.port = runner.addresses[0][1]
    try:
        yield packages
    finally:
        await runner.cleanup()
