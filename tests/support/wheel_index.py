"""A Python package index behind TLS, of wheels made in memory; `asked` counts what was asked for."""

import base64
import hashlib
import io
import random
import ssl
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from controller.pki import CertificateAuthority

USER, PASSWORD = "reader", "r3aderPassw0rd"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def wheel(
    name: str, version: str, *, code: str = "", needs: tuple[str, ...] = (), tag: str = "py3-none-any", noise: int = 0
) -> tuple[str, bytes]:
    """File name and content of a wheel with one module; the same arguments give the same bytes. `noise`: bytes of
    data that cannot be compressed."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    required = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files: dict[str, bytes] = {
        f"{module}.py": code.encode(),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n{required}"
        ).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    if noise:
        files[f"{module}.bin"] = random.Random(f"{name} {version}").randbytes(noise)
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            # Without the time of day: each call gives the same bytes.
            archive.writestr(zipfile.ZipInfo(path), content)
    return f"{module}-{version}-{tag}.whl", packed.getvalue()


@dataclass
class WheelIndex:
    """`files` by name, which may be changed while it runs. `lies`: files that are sent with another content."""

    files: dict[str, bytes]
    ca_file: Path
    port: int = 0
    private: bool = False
    host: str = "127.0.0.1"
    asked: Counter[str] = field(default_factory=Counter)
    lies: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        credentials = f"{USER}:{PASSWORD}@" if self.private else ""
        return f"https://{credentials}{self.host}:{self.port}/simple"

    async def answer(self, request: web.Request) -> web.Response:
        if self.private and request.headers.get("Authorization") != AUTHORIZATION:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        first, _, rest = request.path.strip("/").partition("/")
        if first == "simple":
            return self._listing(rest.strip("/"))
        if rest.endswith(".metadata"):
            return web.Response(body=_metadata(self.files[rest.removesuffix(".metadata")]))
        self.asked[rest] += 1
        if rest in self.lies:
            return web.Response(body=b"something else")
        return web.Response(body=self.files[rest]) if rest in self.files else web.Response(status=404)

    def _listing(self, package: str) -> web.Response:
        links = [
            f'<a href="/files/{name}#sha256={hashlib.sha256(content).hexdigest()}" {_separate(name)}>{name}</a>'
            for name, content in self.files.items()
            if name.startswith(f"{package.replace('-', '_')}-")
        ]
        return web.Response(text="\n".join(links), content_type="text/html", status=200 if links else 404)


def _separate(name: str) -> str:
    """Says that a wheel's metadata can be had alone: https://peps.python.org/pep-0658/"""
    return 'data-core-metadata="true"' if name.endswith(".whl") else ""


def _metadata(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


@asynccontextmanager
async def running_wheel_index(
    folder: Path, files: Mapping[str, bytes], private: bool = False, host: str = "127.0.0.1"
) -> AsyncIterator[WheelIndex]:
    """`host`: the address of this machine where it listens."""
    ca = CertificateAuthority.create(folder / "ca")
    certificate, key = ca.issue_server([host]).write(folder, "index")
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(certificate, key)
    index = WheelIndex(dict(files), folder / "ca" / "ca.crt", private=private, host=host)
    application = web.Application()
    application.router.add_get("/{path:.*}", index.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=trust).start()
    index.port = runner.addresses[0][1]
    try:
        yield index
    finally:
        await runner.cleanup()
