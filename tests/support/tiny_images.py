"""Container images made in memory from a static busybox and pushed to a registry, without Podman or network.

What a container of such an image does is the workload's entrypoint: `sh -c ...`.
"""

import base64
import functools
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

from edge_agent.runtime.model import Artifact

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
APPLETS = (
    "sh",
    "ls",
    "cat",
    "sleep",
    "echo",
    "httpd",
    "nc",
    "id",
    "env",
    "seq",
    "dd",
    "mkdir",
    "kill",
    "true",
    "false",
)


@functools.cache
def busybox() -> bytes:
    """A static busybox for this machine: the installed one, or that of Debian's package, kept in the user's cache."""
    installed = shutil.which("busybox")
    if installed and "statically" in subprocess.run(["file", "-L", installed], capture_output=True, text=True).stdout:
        return Path(installed).read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "longshore-tests", "busybox-static")
    if not (cache / "busybox").exists():
        _download(cache)
    return (cache / "busybox").read_bytes()


def _download(cache: Path) -> None:
    work = cache / f"download-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-q", "busybox-static"], cwd=work, check=True, capture_output=True)
        (package,) = work.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
        (found,) = (path for path in work.rglob("busybox") if path.is_file() and path.stat().st_size > 100_000)
        found.replace(cache / "busybox")
    finally:
        shutil.rmtree(work)


@dataclass(frozen=True)
class Registry:
    """Where images are pushed: address (host:port), user and password that may push, and the authority's file."""

    address: str
    credentials: tuple[str, str]
    ca_file: Path


def push_tiny(
    registry: Registry,
    repository: str,
    *,
    architecture: str = "amd64",
    variant: str = "",
    label: str = "",
    extra_bytes: int = 0,
    below_bytes: int = 0,
    stop_signal: str = "",
) -> Artifact:
    """Pushes an image whose digest differs with every argument; `extra_bytes` of noise make it larger, as does a layer
    of `below_bytes` below that of its programs. Those are this machine's, whatever architecture it says."""
    layers = [_tar_gz(_root_files())]
    if below_bytes:
        layers.insert(0, _tar_gz({"noise-below": os.urandom(below_bytes)}, compress_level=1))
    if extra_bytes:
        layers.append(_tar_gz({"noise": os.urandom(extra_bytes)}, compress_level=1))
    how = {"Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"], "Labels": {"test": label}}
    platform = {"os": "linux", "architecture": architecture, "variant": variant}
    config: dict[str, object] = {
        **{key: value for key, value in platform.items() if value},
        "config": {**how, "StopSignal": stop_signal} if stop_signal else how,
        "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer)) for layer in layers]},
        "history": [{"created_by": "test"} for _ in layers],
    }
    config_bytes = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(CONFIG_TYPE, config_bytes),
        "layers": [_descriptor(LAYER_TYPE, layer) for layer in layers],
    }
    manifest_bytes = json.dumps(manifest).encode()
    pusher = _Pusher(registry, repository)
    for blob in (*layers, config_bytes):
        pusher.push_blob(blob)
    pusher.push_manifest(manifest_bytes)
    return Artifact(f"{registry.address}/{repository}", _digest(manifest_bytes), f"linux/{architecture}")


def _root_files() -> dict[str, bytes]:
    return {"bin/busybox": busybox(), "etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"}


def _tar_gz(files: dict[str, bytes], compress_level: int = 6) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for folder in ("./", "bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for applet in APPLETS if "bin/busybox" in files else ():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return gzip.compress(output.getvalue(), compress_level, mtime=0)


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


class _Pusher:
    """The two uploads of the OCI Distribution protocol, with token authentication."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self._context = ssl.create_default_context(cafile=str(registry.ca_file))
        self._token = self._fetch_token()

    def push_blob(self, content: bytes) -> None:
        path = f"/v2/{self._repository}/blobs/uploads/"
        location = urlsplit(urljoin(path, self._send("POST", path, b"", "").headers["Location"]))
        separator = "&" if location.query else ""
        query = f"{location.query}{separator}{urlencode({'digest': _digest(content)})}"
        self._send("PUT", f"{location.path}?{query}", content, "application/octet-stream")

    def push_manifest(self, content: bytes) -> None:
        self._send("PUT", f"/v2/{self._repository}/manifests/{_digest(content)}", content, MANIFEST_TYPE)

    def _send(self, method: str, path: str, content: bytes, media_type: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(self._registry.address, context=self._context, timeout=30)
        headers = {"Content-Type": media_type, "Authorization": self._token} if media_type else {
            "Authorization": self._token
        }  # fmt: skip
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        assert response.status < 300, f"{method} {path}: {response.status} {answer[:500]!r}"
        return response

    def _fetch_token(self) -> str:
        basic = "Basic " + base64.b64encode(":".join(self._registry.credentials).encode()).decode()
        connection = http.client.HTTPSConnection(self._registry.address, context=self._context, timeout=30)
        connection.request("GET", "/v2/")
        response = connection.getresponse()
        response.read()
        connection.close()
        challenge = dict(re.findall(r'(\w+)="([^"]*)"', response.headers.get("WWW-Authenticate", "")))
        scope = f"repository:{self._repository}:pull,push"
        query = urlencode({"service": challenge["service"], "scope": scope})
        request = urllib.request.Request(f"{challenge['realm']}?{query}", headers={"Authorization": basic})
        with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:
            return "Bearer " + str(json.loads(answer.read())["token"])
