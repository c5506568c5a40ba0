"""A Python package index behind TLS and a password, with one small package; a download can be held back."""

import asyncio
import base64
import hashlib
import io
import ssl
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from controller.pki import CertificateAuthority

PACKAGE = "longshore-sample"
WHEEL = "longshore_sample-1.0-py3-none-any.whl"
HIDDEN = "packages.invalid"
USER, PASSWORD = "indexuser", "1ndexPassw0rd"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def wheel() -> bytes:
    info = "longshore_sample-1.0.dist-info"
    files = {
        "longshore_sample.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: longshore-sample\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "".join(
            f"{name},,\n" for name in ("longshore_sample.py", f"{info}/METADATA", f"{info}/WHEEL")
        ),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            # Without the time of day: each call gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name), text)
    return packed.getvalue()


@dataclass
class PackageIndex:
    """`asked` is set when the wheel was asked for; it is sent only while `open` is set."""

    port: int
    ca_file: Path
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"https://{USER}:{PASSWORD}@127.0.0.1:{self.port}/simple"

    @property
    def hidden_url(self) -> str:
        """By a name that no resolver knows, at the usual port: for those who ask a proxy that knows it."""
        return f"https://{USER}:{PASSWORD}@{HIDDEN}/simple"

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != AUTHORIZATION:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        if request.path.rstrip("/") == f"/simple/{PACKAGE}":
            digest = hashlib.sha256(wheel()).hexdigest()
            return web.Response(text=f'<a href="/{WHEEL}#sha256={digest}">{WHEEL}</a>', content_type="text/html")
        if request.path == f"/{WHEEL}":
            self.asked.set()
            await self.open.wait()
            # As PyPI does; without it uv keeps nothing.
            return web.Response(body=wheel(), headers={"Cache-Control": "max-age=365000000, immutable, public"})
        return web.Response(status=404)


@asynccontextmanager
async def running_index(folder: Path) -> AsyncIterator[PackageIndex]:
    ca = CertificateAuthority.create(folder / "ca")
    certificate, key = ca.issue_server(["127.0.0.1", HIDDEN]).write(folder, "index")
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(certificate, key)
    index = PackageIndex(0, folder / "ca" / "ca.crt")
    index.open.set()
    application = web.Application()
    application.router.add_get("/{path:.*}", index.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust)
    await site.start()
    index.port = runner.addresses[0][1]
    try:
        yield index
    finally:
        index.open.set()
        await runner.cleanup()
