"""What is in a Debian package, read from its two archives."""

import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.builds.debian.tree import Node


@dataclass(frozen=True)
class Package:
    """One package. `control`: its paragraph as dpkg keeps it, without the last line break. `members`: all else that is
    for dpkg, by name, with modes. `files`: paths as packaged, absolute, in the archive's order."""

    control: str
    members: Mapping[str, Node]
    files: tuple[tuple[str, Node], ...]

    def field(self, name: str) -> str:
        match = re.search(rf"^{re.escape(name)}:[ \t]*(.*)$", self.control, re.MULTILINE | re.IGNORECASE)
        return match[1].strip() if match else ""

    @property
    def name(self) -> str:
        return self.field("Package")

    @property
    def stem(self) -> str:
        """Of its files in dpkg's `info` folder."""
        return f"{self.name}:{self.field('Architecture')}" if self.field("Multi-Arch") == "same" else self.name

    def text(self, member: str) -> str:
        node = self.members.get(member)
        return "" if node is None else node.read().decode(errors="replace")


def read_package(archive: Path) -> Package:
    """From `archive`.control and `archive`.data; their content is read when it is asked for."""
    members = {
        path.lstrip("/"): node for path, node in _nodes(Path(f"{archive}.control")) if node.kind == tarfile.REGTYPE
    }
    control = members.pop("control").read().decode().strip("\n")
    return Package(control, members, tuple(_nodes(Path(f"{archive}.data"))))


def _nodes(path: Path) -> list[tuple[str, Node]]:
    with tarfile.open(path, mode="r:") as tar:
        return [(_absolute(member.name), _node(path, member)) for member in tar]


def _node(path: Path, member: tarfile.TarInfo) -> Node:
    link = _absolute(member.linkname) if member.islnk() else member.linkname
    kind = tarfile.REGTYPE if member.isreg() else member.type
    return Node(
        kind=kind, mode=member.mode & 0o7777, uid=member.uid, gid=member.gid, mtime=int(member.mtime), link=link,
        size=member.size if member.isreg() else 0, source=path, offset=member.offset_data,
    )  # fmt: skip


def _absolute(name: str) -> str:
    return "/" + name.removeprefix(".").strip("/")
