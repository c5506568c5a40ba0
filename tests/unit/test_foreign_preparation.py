"""What is made outside of an image for another architecture: the pure parts."""

import base64
import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from controller.builds.emulation import check_needed
from controller.builds.model import BuildFailed, TargetJob
from controller.builds.prepare_base import BaseFiles
from controller.builds.prepare_layout import Interpreter, finish, write_venv
from controller.builds.prepare_root import needs_removal, write_root
from controller.builds.prepare_wheels import installed_version, python_version, wheels_platform
from controller.builds.targets import TargetProfile, load_profiles
from controller.spec.model import BuildSpec

ARM = load_profiles()["arm64-cpu"]
PASSWD = b"root:x:0:0:root:/root:/bin/bash\n"
STATUS = b"""Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u10

Package: python3.11-minimal
Status: install ok installed
Version: 3.11.2-6+deb12u9

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""
DEBIAN = {
    "/usr": ("d", ""), "/usr/bin": ("d", ""), "/bin": ("l", "usr/bin"), "/etc": ("d", ""), "/srv": ("d", ""),
    "/data": ("l", "/srv"), "/usr/bin/python3": ("l", "python3.11"), "/usr/bin/python3.11": ("f", ""),
    "/round": ("l", "round"),
}  # fmt: skip


def base(entries: Mapping[str, tuple[str, str]] = DEBIAN, passwd: bytes = PASSWD, **environment: str) -> BaseFiles:
    texts = {"/etc/passwd": passwd, "/etc/group": b"root:x:0:", "/var/lib/dpkg/status": STATUS}
    return BaseFiles(entries, texts, environment)


def job(**spec: object) -> TargetJob:
    return TargetJob("b", "alice", "vision", "digits", "arm64-cpu", BuildSpec.model_validate(spec), "r/alice/digits")


def members(archive: Path) -> dict[str, tuple[int, int]]:
    """Owner and mode by name."""
    with tarfile.open(archive) as tar:
        return {member.name: (member.uid, member.mode) for member in tar}


def test_links_of_a_base_are_followed_inside_of_it() -> None:
    found = base()
    assert found.real("/bin/python3") == "/usr/bin/python3.11"
    assert found.real("/data/new/x") == "/srv/new/x"
    assert found.which("python3") == "/usr/bin/python3"
    assert not found.is_there("/round/x")


def test_account_and_folders_come_as_the_step_would_make_them(tmp_path: Path) -> None:
    write_root(base(), job(workdir="/data/app", volumes=["/srv", "/var/lib/cache"]), tmp_path / "root.tar")
    assert members(tmp_path / "root.tar") == {
        "etc/passwd": (0, 0o644), "etc/group": (0, 0o644), "home": (0, 0o755), "home/app": (1000, 0o755),
        "srv/app": (1000, 0o755), "var": (0, 0o755), "var/lib": (0, 0o755), "var/lib/cache": (1000, 0o755),
    }  # fmt: skip
    with tarfile.open(tmp_path / "root.tar") as tar:
        passwd, group = tar.extractfile("etc/passwd"), tar.extractfile("etc/group")
        assert passwd is not None
        assert group is not None
        assert passwd.read() == PASSWD + b"app:x:1000:1000::/home/app:/bin/sh\n"
        assert group.read() == b"root:x:0:\napp:x:1000:\n"


def test_a_base_with_a_user_1000_keeps_its_accounts(tmp_path: Path) -> None:
    known = PASSWD + b"node:x:1000:1000::/home/node:/bin/sh\n"
    write_root(base(passwd=known), job(allow_root=True), tmp_path / "root.tar")
    assert members(tmp_path / "root.tar") == {"etc/passwd": (0, 0o644), "etc/group": (0, 0o644), "app": (0, 0o755)}


def test_a_base_with_sudo_needs_a_step_unless_root_is_allowed() -> None:
    with_sudo = base({**DEBIAN, "/usr/bin/sudo": ("f", "")})
    assert needs_removal(with_sudo, job())
    assert not needs_removal(with_sudo, job(allow_root=True))
    assert not needs_removal(base(), job())


def test_versions_are_told_from_the_files_of_the_base() -> None:
    assert python_version(base(), "/usr/bin/python3") == "3.11.2"
    own = {"/usr/local/bin/python3": ("l", "python3.12"), "/usr/local/bin/python3.12": ("f", "")}
    assert python_version(base(own, PYTHON_VERSION="3.12.7"), "/usr/local/bin/python3") == "3.12.7"
    assert python_version(base(own, PYTHON_VERSION="nonsense"), "/usr/local/bin/python3") == "3.12"
    assert python_version(base({"/usr/bin/python3": ("f", "")}), "/usr/bin/python3") == ""
    assert installed_version(base(), "gone") == ""


@pytest.mark.parametrize(
    ("status", "platform"),
    [(STATUS, "aarch64-manylinux_2_36"), (b"", ARM.wheels),
     (STATUS.replace(b"2.36", b"2.99"), "aarch64-manylinux_2_40"),
     (STATUS.replace(b"2.36", b"2.27"), "aarch64-manylinux_2_17")],
)  # fmt: skip
def test_wheels_are_those_for_the_glibc_of_the_base(status: bytes, platform: str) -> None:
    found = BaseFiles({}, {"/var/lib/dpkg/status": status}, {})
    assert wheels_platform(ARM, found) == platform


def test_a_base_with_another_c_library_gets_wheels_for_that() -> None:
    alpine = BaseFiles({"/lib/ld-musl-aarch64.so.1": ("f", "")}, {}, {})
    assert wheels_platform(ARM, alpine) == "aarch64-unknown-linux-musl"


def test_an_environment_made_elsewhere_names_nothing_of_the_place(tmp_path: Path) -> None:
    venv = tmp_path / "opt/venv"
    site = venv / "lib/python3.13/site-packages"
    (site / "a-1.dist-info").mkdir(parents=True)
    (venv / "bin").mkdir()
    for name in ("python", "python3", "python3.13"):
        (venv / "bin" / name).symlink_to("/usr/local/bin/python3.13")
    (venv / "pyvenv.cfg").write_text("home = /usr/local/bin\nversion_info = 3.13.1\nuv = 0.9\n")
    long = f"#!/bin/sh\n'''exec' '{venv}/bin/python3' \"$0\" \"$@\"\n' '''\nimport a\n"
    for name, text in (("long", long), ("short", f"#!{venv}/bin/python3\nimport a\n")):
        (venv / "bin" / name).write_text(text)
        (venv / "bin" / name).chmod(0o755)
    (site / "a-1.dist-info/RECORD").write_text("../../../bin/long,sha256=x,1\na/__init__.py,,\n")
    cached = tmp_path / "cached"
    cached.hardlink_to(venv / "bin/short")
    finish(venv, Interpreter("/usr/bin/python3", "3.11.2", "/usr/bin/python3.11"))
    expected = b"#!/opt/venv/bin/python3\nimport a\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(expected).digest()).decode().rstrip("=")
    assert (venv / "bin/long").read_bytes() == (venv / "bin/short").read_bytes() == expected
    assert str(tmp_path) in cached.read_text()
    record = venv / "lib/python3.11/site-packages/a-1.dist-info/RECORD"
    assert record.read_text() == f"../../../bin/long,sha256={digest},{len(expected)}\na/__init__.py,,\n"
    assert (venv / "pyvenv.cfg").read_text() == "home = /usr/bin\nversion_info = 3.11.2\nuv = 0.9\n"
    write_venv(venv, tmp_path / "venv.tar")
    with tarfile.open(tmp_path / "venv.tar") as tar:
        links = {member.name: member.linkname for member in tar if member.issym()}
        assert {member.mtime for member in tar} == {0}
    assert links == {
        "opt/venv/bin/python": "/usr/bin/python3", "opt/venv/bin/python3": "python",
        "opt/venv/bin/python3.11": "python",
    }  # fmt: skip


class Machine:
    """One that runs nothing foreign."""

    architecture = "amd64"

    async def check(self, profile: TargetProfile) -> None:
        raise BuildFailed("EmulationUnavailable", f"cannot run {profile.platform}")


async def test_emulation_is_asked_for_only_by_what_needs_it() -> None:
    machine = Machine()
    await check_needed(machine, ARM, ())
    await check_needed(machine, load_profiles()["x86-cpu"], ("something",))
    with pytest.raises(BuildFailed) as caught:
        await check_needed(machine, ARM, ("the step of build.steps",))
    assert caught.value.reason == "EmulationUnavailable"
    assert caught.value.message == "cannot run linux/arm64; needed here: the step of build.steps"
