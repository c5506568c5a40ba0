"""What the bare-metal agent makes of a bundle: manifest, description, lock, layers of files, folders that are whole."""

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baremetal_agent.virtualenv.bundle import (
    ARTIFACT_TYPE,
    FILES_TYPE,
    WHEEL_TYPE,
    parse_description,
    parse_manifest,
)
from baremetal_agent.virtualenv.environments import environment_name, requirements
from baremetal_agent.virtualenv.folders import MARKER, Folders
from baremetal_agent.virtualenv.packages import parse_installed
from controller.builds.bundles import description as controller_side
from controller.builds.bundles import packing
from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.blobs import TITLE
from edge_agent.runtime.unpacking import DamagedLayer, UnsafeLayer, unpack

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
DESCRIPTION: dict[str, Any] = {
    "schema": 1, "name": "digits", "profile": "x86-cpu", "platform": "linux/amd64", "python": "3.11",
    "lock": f"numpy==2.0 --hash={DIGEST}\n", "wheels": [], "packages": {"apt": ["libgomp1"]},
    "entrypoint": ["python", "main.py"], "environment": {"PATH": "/opt/venv/bin:/usr/bin"}, "workdir": "/app",
    "places": {"/app": "files", "/opt/venv": "environment"}, "ports": {"http": 8080}, "labels": {},
}  # fmt: skip


def manifest_text(**changes: Any) -> bytes:
    wheel = {"mediaType": WHEEL_TYPE, "digest": DIGEST, "size": 7, "annotations": {TITLE: "numpy-2.0-py3-none-any.whl"}}
    files = {"mediaType": FILES_TYPE, "digest": OTHER, "size": 9}
    config = {"mediaType": "x", "digest": OTHER, "size": 1}
    return json.dumps({"artifactType": ARTIFACT_TYPE, "config": config, "layers": [wheel, files], **changes}).encode()


def test_manifest_is_read() -> None:
    manifest = parse_manifest("r/a", manifest_text())
    assert [wheel.title for wheel in manifest.wheels] == ["numpy-2.0-py3-none-any.whl"]
    assert [layer.digest for layer in manifest.files] == [OTHER]
    assert sum(part.size for part in manifest.parts) == 17


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (manifest_text(artifactType=None), "no bundle, but an image"),
        (manifest_text(layers=[{"mediaType": "new", "digest": DIGEST, "size": 1}]), "does not know: new"),
        (manifest_text(config={"mediaType": "x", "digest": "sha256:../../etc", "size": 1}), "is no digest"),
        (
            manifest_text(
                layers=[
                    {"mediaType": WHEEL_TYPE, "digest": DIGEST, "size": 1, "annotations": {TITLE: "../../bin/sh.whl"}}
                ]
            ),
            "is no name of a wheel",
        ),
        (b"{}", "no bundle"),
        (b"[]", "cannot use r/a"),
        (b"not json", "cannot use r/a"),
    ],
)
def test_manifest_of_something_else_is_refused_for_good(content: bytes, said: str) -> None:
    with pytest.raises(BackendError, match=said) as caught:
        parse_manifest("r/a", content)
    assert (caught.value.reason, caught.value.retryable) == ("InvalidBundle", False)


def test_description_is_read() -> None:
    description = parse_description("r/a", json.dumps(DESCRIPTION).encode())
    assert description.entrypoint == ("python", "main.py")
    assert description.places == (("/app", "files"), ("/opt/venv", "environment"))
    assert (description.apt, description.workdir, description.python) == (("libgomp1",), "/app", "3.11")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "upgrade the agent"),
        ({"places": {"/app": "../secrets"}}, "no folder of a bundle"),
        ({"places": {"app": "files"}}, "no absolute path"),
        ({"places": {"/": "files"}}, "no absolute path"),
        ({"workdir": "/app/../etc"}, "no absolute path"),
        ({"entrypoint": None}, "cannot use r/a"),
    ],
)
def test_description_that_makes_no_sense_is_refused_for_good(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError, match=said) as caught:
        parse_description("r/a", json.dumps({**DESCRIPTION, **changes}).encode())
    assert (caught.value.reason, caught.value.retryable) == ("InvalidBundle", False)


def test_both_sides_mean_the_same_form() -> None:
    assert (ARTIFACT_TYPE, WHEEL_TYPE, FILES_TYPE, TITLE) == (
        controller_side.ARTIFACT_TYPE, packing.WHEEL_TYPE, packing.FILES_TYPE, packing.TITLE,
    )  # fmt: skip


def test_environments_are_shared_by_what_has_the_same_lock_and_python() -> None:
    def name(**changes: Any) -> str:
        return environment_name(parse_description("r/a", json.dumps({**DESCRIPTION, **changes}).encode()))

    assert name() == name(entrypoint=["other"], environment={}, packages={"apt": []})
    assert len({name(), name(lock=""), name(python="3.12"), name(platform="linux/arm64")}) == 4


def test_lock_names_the_very_file_of_each_package() -> None:
    text = requirements("r/a", DESCRIPTION["lock"], {DIGEST: Path("/wheels/aaa/numpy-2.0-py3-none-any.whl")})
    assert text == f"numpy @ file:///wheels/aaa/numpy-2.0-py3-none-any.whl --hash={DIGEST}\n"


@pytest.mark.parametrize("lock", [f"numpy==2.0 --hash={OTHER}\n", "numpy\n", "--index-url http://evil\n"])
def test_lock_that_the_wheels_do_not_fulfil_is_refused(lock: str) -> None:
    with pytest.raises(BackendError, match="has no wheel for"):
        requirements("r/a", lock, {DIGEST: Path("/x.whl")})


def test_installed_packages_are_known_by_name_version_architecture_and_what_they_provide() -> None:
    installed = parse_installed(
        "installed|libc6|amd64|2.36-9|libc-alias (= 2.36)\n"
        "config-files|gone|amd64|1|\n"
        "installed|exim|all|4|mail-transport-agent, other (= 1)\n"
    )
    there = ("libc6", "libc6=2.36-9", "libc6:amd64", "libc-alias", "mail-transport-agent", "other")
    assert [name for name in there if not installed.has(name)] == []
    assert [
        name for name in ("gone", "libc6=2.37", "libc6:arm64", "mail-transport-agent=2", "x") if installed.has(name)
    ] == []


Member = tuple[str, bytes | None, int, str]


def layer(path: Path, *members: Member) -> str:
    """An archive of (name, content, type, link target); its digest."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content, kind, target in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = bytes([kind]), target, 0o755
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    path.write_bytes(packed.getvalue())
    return f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"


def file(name: str, content: bytes = b"x") -> Member:
    return (name, content, tarfile.REGTYPE[0], "")


def test_later_layer_wins_and_modes_are_for_everybody_to_read(tmp_path: Path) -> None:
    digest = layer(tmp_path / "one", file("files/deep/main.py", b"old"), file("files/run.sh"))
    later = layer(tmp_path / "two", file("files/deep/main.py", b"new"))
    target = tmp_path / "out"
    target.mkdir(mode=0o700)
    unpack(tmp_path / "one", digest, target, {"files"})
    unpack(tmp_path / "two", later, target, {"files"})
    assert (target / "files/deep/main.py").read_bytes() == b"new"
    assert (target / "files/run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "files/deep").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "member",
    [
        file("../evil"),
        file("files/../../evil"),
        file("/etc/evil"),
        file("environment/bin/python"),
        file("elsewhere/file"),
        ("files/link", None, tarfile.SYMTYPE[0], "/etc"),
        ("files/hard", None, tarfile.LNKTYPE[0], "files/run.sh"),
        ("files/null", None, tarfile.CHRTYPE[0], ""),
        ("files/pipe", None, tarfile.FIFOTYPE[0], ""),
    ],
    ids=lambda member: str(member[0]),
)
def test_layer_that_reaches_outside_or_holds_no_file_is_refused(tmp_path: Path, member: Member) -> None:
    digest = layer(tmp_path / "layer", member)
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(UnsafeLayer):
        unpack(tmp_path / "layer", digest, target, {"files"})
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda content: gzip.compress(gzip.decompress(content), 1),
        lambda content: b"no archive",
    ],
)
def test_layer_that_is_not_what_its_digest_says_is_damaged(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "layer"
    digest = layer(path, file("files/main.py", bytes(100_000)))
    path.write_bytes(spoil(path.read_bytes()))
    (tmp_path / "out").mkdir()
    with pytest.raises(DamagedLayer):
        unpack(path, digest, tmp_path / "out", {"files"})


def make(folders: Folders, name: str, content: str) -> None:
    with folders.making(name) as fresh:
        (fresh / "file").write_text(content)


async def test_folder_is_trusted_after_a_power_cut_only_once_it_is_on_the_disk(tmp_path: Path) -> None:
    before = Folders(tmp_path / "made", "boot-1")
    make(before, "settled", "a")
    await before.settle("settled")
    make(before, "loose", "b")
    assert [before.whole(name) for name in ("settled", "loose", "nowhere")] == [True, True, False]
    after = Folders(tmp_path / "made", "boot-2")
    assert [after.whole(name) for name in ("settled", "loose")] == [True, False]
    await after.settle("loose")
    assert not after.whole("loose")


def test_folder_whose_making_fails_is_not_there_and_the_one_before_stays(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "made", "boot")
    make(folders, "name", "first")
    with pytest.raises(UnicodeEncodeError):
        make(folders, "name", "\udc80")
    assert (folders.path("name") / "file").read_text() == "first"
    assert folders.names() == ["name"]
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_what_a_break_left_half_made_or_half_removed_is_swept(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "made", "boot")
    make(folders, "name", "whole")
    for leftover in (".new-name-1", ".old-name-2"):
        (tmp_path / "made" / leftover).mkdir()
    assert folders.names() == ["name"]
    folders.sweep()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["name"]


async def test_folder_that_is_changed_in_place_is_unsettled_again_and_empty_if_it_was_torn(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "made", "boot-1")
    change(folders, "entry")
    await folders.settle("cache")
    later = Folders(tmp_path / "made", "boot-2")
    assert change(later, "other") == {"entry", "other"}
    assert not later.settled("cache")
    assert change(Folders(tmp_path / "made", "boot-3"), "third") == {"third"}


def change(folders: Folders, file: str) -> set[str]:
    """What is there afterwards."""
    with folders.changing("cache") as folder:
        (folder / file).touch()
        return {path.name for path in folder.iterdir()} - {MARKER}


async def test_folder_that_is_changed_while_it_is_settled_is_not_settled_by_that(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "made", "boot")
    change(folders, "one")
    settling = asyncio.create_task(folders.settle("cache"))
    # It waits for the disk now.
    await asyncio.sleep(0)
    change(folders, "two")
    await settling
    assert not folders.settled("cache")
    with folders.changing("cache"):
        await folders.settle("cache")
        assert not folders.settled("cache")
    await folders.settle("cache")
    assert folders.settled("cache")
