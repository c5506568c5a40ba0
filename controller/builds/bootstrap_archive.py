"""An image of one layer as one file, an OCI archive, that is the same wherever the layer is.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

import hashlib
import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

TYPES = "application/vnd.oci.image"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# No moment of its making: the same packages give the same image.
EPOCH = "1970-01-01T00:00:00Z"


def write_archive(layer: Path, target: Path, architecture: str, comment: str) -> None:
    """`layer` is the tar of the whole file tree; `architecture` as Go spells it. Blocks."""
    with layer.open("rb") as file:
        layer_digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = _json(_config(architecture, layer_digest, comment))
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": f"{TYPES}.manifest.v1+json",
        "config": _descriptor("config.v1+json", config),
        "layers": [{
            "mediaType": f"{TYPES}.layer.v1.tar", "digest": f"sha256:{layer_digest}", "size": layer.stat().st_size,
        }],
    })  # fmt: skip
    index = _json({"schemaVersion": 2, "manifests": [_descriptor("manifest.v1+json", manifest)]})
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for content in (config, manifest):
            _add(tar, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
        entry = tarfile.TarInfo(f"blobs/sha256/{layer_digest}")
        entry.size = layer.stat().st_size
        with layer.open("rb") as file:
            tar.addfile(entry, file)
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)


def _config(architecture: str, layer: str, comment: str) -> dict[str, Any]:
    # The variant of 32-bit ARM whose instructions Debian's armhf uses.
    variant = {"variant": "v7"} if architecture == "arm" else {}
    return {
        "created": EPOCH, "architecture": architecture, "os": "linux", **variant,
        "config": {"Env": [f"PATH={PATH}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": EPOCH, "created_by": comment}],
    }  # fmt: skip


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"mediaType": f"{TYPES}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))
