"""A conda channel behind TLS, of packages made in memory; `asked` counts requests."""

import asyncio
import hashlib
import io
import json
import ssl
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from controller.pki import CertificateAuthority

# What stands in files in place of the environment's folder. Long, since in a binary it is overwritten.
PLACEHOLDER = "/opt/placeholder_placeholder_placeholder_placeholder"


@dataclass(frozen=True)
class CondaPackage:
    """`files` by path in the environment: text or, as bytes, a binary; in both the environment's folder takes the place
    of PLACEHOLDER. A text that begins with "-> " is a link. `more`: fields of the channel's description."""

    name: str
    version: str
    subdir: str = "noarch"
    needs: tuple[str, ...] = ()
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    entry_points: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-0.tar.bz2"

    @property
    def noarch(self) -> str:
        """ "python" for one whose files belong below site-packages, whatever Python there is."""
        if self.subdir != "noarch":
            return ""
        return "python" if self.entry_points else "generic"

    def record(self) -> dict[str, Any]:
        known = {
            "name": self.name, "version": self.version, "build": "0", "build_number": 0, "subdir": self.subdir,
            "depends": list(self.needs), "license": "MIT", "timestamp": 1_600_000_000_000,
        }  # fmt: skip
        return {**known, **({"noarch": self.noarch} if self.noarch else {}), **self.more}

    def archive(self) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:bz2") as tar:
            for path, content in {**self._about(), **self.files}.items():
                tar.addfile(*_member(path, content))
        return packed.getvalue()

    def _about(self) -> dict[str, str]:
        about = {
            "info/index.json": json.dumps(self.record()),
            "info/paths.json": json.dumps({"paths_version": 1, "paths": [self._path(path) for path in self.files]}),
            "info/files": "".join(f"{path}\n" for path in self.files),
        }
        if self.entry_points:
            noarch = {"type": "python", "entry_points": list(self.entry_points)}
            about["info/link.json"] = json.dumps({"noarch": noarch, "package_metadata_version": 1})
        return about

    def _path(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        data = content.encode() if isinstance(content, str) else content
        if data.startswith(b"-> "):
            return {"_path": path, "path_type": "softlink"}
        digest = hashlib.sha256(data).hexdigest()
        found = {"_path": path, "path_type": "hardlink", "sha256": digest, "size_in_bytes": len(data)}
        if PLACEHOLDER.encode() in data:
            mode = "text" if isinstance(content, str) else "binary"
            found |= {"prefix_placeholder": PLACEHOLDER, "file_mode": mode}
        return found


def _member(path: str, content: str | bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    entry = tarfile.TarInfo(path)
    if isinstance(content, str) and content.startswith("-> "):
        entry.type, entry.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
        return entry, io.BytesIO()
    data = content.encode() if isinstance(content, str) else content
    entry.size, entry.mode = len(data), 0o755 if "bin/" in path else 0o644
    return entry, io.BytesIO(data)


@dataclass
class CondaChannel:
    """`packages` may be changed while it runs. While `deaf`, it hangs up on everyone; files named in `held` are sent
    when `released` is set."""

    packages: Sequence[CondaPackage]
    ca_file: Path
    port: int = 0
    deaf: bool = False
    held: set[str] = field(default_factory=set)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/samples"

    async def answer(self, request: web.Request) -> web.Response:
        if self.deaf and request.transport is not None:
            request.transport.abort()
        _, channel, subdir, name = f"{request.path}///".split("/")[:4]
        self.asked[name] += 1
        if name in self.held:
            await self.released.wait()
        there = {package.file_name: package for package in self.packages if package.subdir == subdir}
        if channel == "samples" and name == "repodata.json":
            return web.json_response(_repodata(subdir, there))
        return web.Response(body=there[name].archive()) if name in there else web.Response(status=404)


def _repodata(subdir: str, packages: Mapping[str, CondaPackage]) -> dict[str, Any]:
    records = {}
    for name, package in packages.items():
        content = package.archive()
        sums = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        records[name] = {**sums, **package.record()}
    return {"info": {"subdir": subdir}, "packages": records, "packages.conda": {}, "repodata_version": 1}


@asynccontextmanager
async def running_conda_channel(folder: Path, packages: Sequence[CondaPackage]) -> AsyncIterator[CondaChannel]:
    ca = CertificateAuthority.create(folder / "ca")
    certificate, key = ca.issue_server(["127.0.0.1"]).write(folder, "channel")
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trust.load_cert_chain(certificate, key)
    channel = CondaChannel(packages, folder / "ca" / "ca.crt")
    application = web.Application()
    application.router.add_get("/{path:.*}", channel.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust).start()
    channel.port = runner.addresses[0][1]
    try:
        yield channel
    finally:
        channel.released.set()
        await runner.cleanup()
