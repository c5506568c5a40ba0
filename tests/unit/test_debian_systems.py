"""Debian systems made from packages without running anything of theirs."""

import re
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.builds.debian import certificates, libraries
from controller.builds.debian.alternatives import Choice, choices_in
from controller.builds.debian.scripts import matters_after, matters_before
from controller.builds.debian.system import build_tree, sources_list
from controller.builds.debian.tree import Node, Tree
from tests.support.debs import make_package

PASSWD = "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
AWK = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\
        --slave /usr/bin/nawk nawk /usr/bin/mawk
fi
"""
PLAIN = """#!/bin/sh
set -e
case "$1" in
    configure)
    ;;
    abort-upgrade|abort-remove)
    ;;
    *)
        echo "postinst called with unknown argument" >&2
        exit 1
    ;;
esac
# Automatically added by dh_python3
if command -v py3compile >/dev/null 2>&1; then
    py3compile -p sample
fi
# End automatically added section
exit 0
"""
USERS = '#!/bin/sh\nset -e\nif [ "$1" = configure ]; then\n    adduser --system sample\nfi\n'


def make_system(folder: Path) -> Tree:
    passwd = {
        f"/usr/share/base-passwd/{name}.master": text for name, text in (("passwd", PASSWD), ("group", "root:*:0:\n"))
    }
    packages = [
        make_package(folder, "base-passwd", passwd, architecture="all"),
        make_package(folder, "mawk", {"/usr/bin/mawk": "\x7fELF"}, {"postinst": AWK}),
        make_package(
            folder, "sample", {"/etc/sample.conf": "a=1\n", "/lib/sample": "x", "/usr/share/doc/sample/README": "long"},
            {"conffiles": "/etc/sample.conf\n", "triggers": "interest-noawait /usr/lib/samples\n"},
            "Multi-Arch: same\n",
        ),
    ]  # fmt: skip
    return build_tree(packages, "arm64", sources_list("bookworm", ""))


def test_dpkg_reads_the_packages_of_a_made_system_as_installed(tmp_path: Path) -> None:
    tree = make_system(tmp_path)
    tree.write_tar(tmp_path / "tree.tar")
    root = tmp_path / "root"
    with tarfile.open(tmp_path / "tree.tar") as tar:
        tar.extractall(root, filter="tar")
    form = "-f=${db:Status-Abbrev}${Package} ${Version} ${Architecture} ${Conffiles}\n"
    told = subprocess.run(["dpkg-query", f"--root={root}", "-W", form], check=True, capture_output=True, text=True)
    assert "ii mawk 1.0 arm64" in told.stdout
    assert "/etc/sample.conf d5e29449b9e66d5b4bb0d6ce48fbbcb1" in told.stdout
    owner = subprocess.run(
        ["dpkg-query", f"--root={root}", "-S", "/lib/sample"], check=True, capture_output=True, text=True
    )
    assert owner.stdout == "sample:arm64: /lib/sample\n"
    audit = subprocess.run(["dpkg", f"--root={root}", "--audit"], check=True, capture_output=True, text=True)
    assert audit.stdout == ""


def test_a_made_system_has_what_scripts_would_have_made(tmp_path: Path) -> None:
    tree = make_system(tmp_path)
    assert tree.node("/etc/alternatives/awk").link == "/usr/bin/mawk"
    assert tree.node("/usr/bin/awk").link == "/etc/alternatives/awk"
    assert tree.node("/usr/bin/nawk").link == "/etc/alternatives/nawk"
    assert tree.node("/lib").link == "usr/lib"
    assert tree.read("/usr/lib/sample") == b"x"
    assert tree.read("/etc/passwd").startswith(b"root:x:0:0:")
    assert b"_apt:x:42:65534:" in tree.read("/etc/passwd")
    assert tree.read("/var/lib/dpkg/triggers/File") == b"/usr/lib/samples sample:arm64/noawait\n"
    assert "/usr/share/doc/sample/README" not in tree


def test_the_same_packages_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    trees = [make_system(tmp_path / name) for name in ("one", "two")]
    for number, tree in enumerate(trees):
        for path in tree:
            # What dpkg-deb notes is the time of this test.
            node = tree.node(path)
            if node.mtime:
                object.__setattr__(node, "mtime", 7)
        tree.write_tar(tmp_path / f"{number}.tar")
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()


def test_a_file_with_two_names_is_written_once_under_the_first(tmp_path: Path) -> None:
    source = tmp_path / "package"
    source.write_bytes(b"ahead" + b"x" * 1000)
    tree = Tree()
    tree.add("/bin/b", Node(source=source, offset=5, size=1000))
    tree.add("/bin/a", Node(kind=tarfile.LNKTYPE, link="/bin/b"))
    tree.write("/bin/c", b"behind")
    tree.write_tar(tmp_path / "tree.tar")
    with tarfile.open(tmp_path / "tree.tar") as tar:
        files = [member for member in tar if not member.isdir()]
        members = {member.name: (member.isreg(), member.linkname, member.size) for member in files}
        content = tar.extractfile("usr/bin/b")
        assert content is not None
        assert content.read() == b"x" * 1000
    assert members == {
        "usr/bin/a": (True, "", 1000),
        "usr/bin/b": (False, "usr/bin/a", 0),
        "usr/bin/c": (True, "", 6),
    }


@pytest.mark.parametrize("subject", ["Plain", "  Two   Spaces ÄÖ ", "MiXeD case & more"])
def test_certificates_are_named_as_openssl_names_them(subject: str, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "KR"), x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(5)
        .not_valid_before(now).not_valid_after(now.replace(year=2036)).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / "one.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    argv = ["openssl", "x509", "-in", str(path), "-noout", "-subject_hash"]
    expected = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    bundle, links = certificates.trusted_folder({"/c/one.crt": path.read_bytes()})
    assert links == {"one.pem": "/c/one.crt", f"{expected}.0": "one.pem"}
    assert bundle == path.read_bytes()


@pytest.mark.skipif(not Path("/usr/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="needs libraries of amd64")
def test_ldconfig_reads_the_cache_of_libraries(tmp_path: Path) -> None:
    folder = Path("/usr/lib/x86_64-linux-gnu")
    tree = Tree()
    libraries.write_cache(tree, "amd64")
    empty = tree.read("/etc/ld.so.cache")
    for name in ("libc.so.6", "libm.so.6"):
        content = (folder / name).resolve().read_bytes()
        assert libraries.soname(content) == name
        tree.write(f"{folder}/{name}", content)
    libraries.write_cache(tree, "amd64")
    (tmp_path / "cache").write_bytes(tree.read("/etc/ld.so.cache"))
    program = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    assert program is not None
    told = subprocess.run([program, "-p", "-C", tmp_path / "cache"], check=True, capture_output=True, text=True)
    assert re.findall(r"^\t(\S+) \(libc6,x86-64\) => (\S+)$", told.stdout, re.MULTILINE) == [
        ("libm.so.6", "/lib/x86_64-linux-gnu/libm.so.6"), ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
    ]  # fmt: skip
    assert libraries.extended_cache(empty, tree, "amd64") == tree.read("/etc/ld.so.cache")


def test_what_is_no_library_has_no_name() -> None:
    for content in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 200, b"#!/bin/sh\n"):
        assert libraries.soname(content) == ""


def test_alternatives_that_depend_on_variables_are_not_guessed() -> None:
    assert choices_in(AWK) == [
        Choice("/usr/bin/awk", "awk", "/usr/bin/mawk", 5, (("/usr/bin/nawk", "nawk", "/usr/bin/mawk"),))
    ]
    assert choices_in("update-alternatives --install /usr/bin/x x /usr/bin/x$VERSION 5") == []


@pytest.mark.parametrize(
    ("script", "matters"),
    [("", False), (PLAIN, False), (AWK, False), (USERS, True), ("#!/bin/sh\nset -e\n$(touch /x)\n", True),
     ("#!/usr/bin/perl\nsystem('x');\n", True), ("#!/bin/sh\nif [ -x `touch /y` ]; then\nfi\n", True)],
)  # fmt: skip
def test_only_scripts_that_do_something_have_to_run(script: str, matters: bool, tmp_path: Path) -> None:
    members = {"postinst": script, "preinst": script} if script else {}
    package = make_package(tmp_path, "sample", {"/usr/lib/x": "x"}, members)
    assert (matters_before(package), matters_after(package)) == (matters, matters)
