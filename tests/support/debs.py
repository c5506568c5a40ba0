"""Small Debian packages, made by dpkg-deb and read as the builder reads downloaded ones."""

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from controller.builds.debian.archive import Package, read_package

CONTROL = "Package: {name}\nVersion: 1.0\nArchitecture: {architecture}\nMaintainer: Nobody <nobody@example.org>\n"


def make_package(
    folder: Path,
    name: str,
    files: Mapping[str, str | bytes],
    scripts: Mapping[str, str] | None = None,
    more: str = "",
    architecture: str = "arm64",
) -> Package:
    """`files` by absolute path, links as "-> target"; `scripts` are members for dpkg; `more` are fields of control."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    control = CONTROL.format(name=name, architecture=architecture)
    (root / "DEBIAN/control").write_text(f"{control}{more}Description: a sample\n")
    for member, text in (scripts or {}).items():
        path = root / "DEBIAN" / member
        path.write_text(text)
        path.chmod(0o755 if member.endswith(("inst", "rm")) else 0o644)
    for file, content in files.items():
        path = root / file.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.parent.name != "DEBIAN"
    ]
    (root / "DEBIAN/md5sums").write_text("".join(sums))
    archive = archive_of(folder, name)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, archive], check=True, capture_output=True)
    for option, suffix in (("--fsys-tarfile", ".data"), ("--ctrl-tarfile", ".control")):
        unpacked = subprocess.run(["dpkg-deb", option, archive], check=True, capture_output=True).stdout
        Path(f"{archive}{suffix}").write_bytes(unpacked)
    return read_package(archive)


def archive_of(folder: Path, name: str) -> Path:
    """Where `make_package` leaves the package itself."""
    return folder / f"{name}.deb"


def flat_repository(url: str, package: Path) -> dict[str, bytes]:
    """The files of a repository with this one package, by URL; apt reads it as `deb [trusted=yes] URL/ ./`."""
    content = package.read_bytes()
    control = subprocess.run(["dpkg-deb", "--field", package], check=True, capture_output=True, text=True).stdout
    places = f"Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    packages = f"{control}{places}".encode()
    listed = f"{hashlib.sha256(packages).hexdigest()} {len(packages)} Packages"
    release = f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {listed}\n"
    files = {package.name: content, "Packages": packages, "Release": release.encode()}
    return {f"{url}/./{name}": text for name, text in files.items()}
