"""The bill of materials of a bundle, whatever its wheels are."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from controller.builds.bundles.lock import LockedWheel
from controller.builds.bundles.materials import bundle_materials
from controller.builds.bundles.wheels import WheelStore
from controller.builds.model import TargetJob
from controller.spec.model import BuildSpec

JOB = TargetJob("b1", "alice", "vision", "digits", "x86-cpu", BuildSpec(), "registry:5000/alice/digits")
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1\nLicense-Expression: MIT\n"


def wheel() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("demo-1.dist-info/METADATA", METADATA)
    return output.getvalue()


def changed(at: int, new: bytes) -> bytes:
    content = wheel()
    return content[:at] + new + content[at + len(new) :]


DIRECTORY = wheel().index(b"PK\x01\x02")
DAMAGED = {
    "no zip": b"not a zip",
    "encrypted": changed(DIRECTORY + 8, b"\x01"),
    "of a future version": changed(DIRECTORY + 6, b"\xff"),
    "with a place before its beginning": changed(len(wheel()) - 6, b"\xff\xff\xff\x7f"),
    "with content that cannot be unpacked": changed(30 + len("demo-1.dist-info/METADATA"), b"\xff\xff\xff\xff"),
}


def described(folder: Path, content: bytes) -> list[tuple[str, bool]]:
    """Name of each package, and whether a license is told."""
    sha256 = hashlib.sha256(content).hexdigest()
    locked = LockedWheel("demo", "1", "demo-1-py3-none-any.whl", sha256)
    store = WheelStore(folder)
    store.path(locked).parent.mkdir(parents=True)
    store.path(locked).write_bytes(content)
    parts = json.loads(bundle_materials(JOB, [locked], store))["components"]
    return [(part["purl"], bool(part.get("licenses"))) for part in parts if "purl" in part]


def test_a_wheel_tells_its_license(tmp_path: Path) -> None:
    assert described(tmp_path, wheel()) == [("pkg:pypi/demo@1", True)]


@pytest.mark.parametrize("what", DAMAGED)
def test_a_wheel_that_cannot_be_read_is_named_all_the_same(tmp_path: Path, what: str) -> None:
    assert described(tmp_path, DAMAGED[what]) == [("pkg:pypi/demo@1", False)]
