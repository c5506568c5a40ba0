"""A file tree on its way into an image, in memory but for the contents; written as a tar that is always the same."""

import io
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

# https://wiki.debian.org/UsrMerge: these are links into /usr.
ALIASED = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")


@dataclass(frozen=True)
class Node:
    """One entry. `kind` as in tarfile. Content: `content`, or `size` bytes at `offset` of the file `source`."""

    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str = ""
    content: bytes = b""
    source: Path | None = None
    offset: int = 0
    size: int = 0

    def read(self) -> bytes:
        if self.source is None:
            return self.content
        with self.source.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class Tree:
    """Entries by absolute path, below /usr where /usr is merged. Folders above an entry need not be named."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def __contains__(self, path: str) -> bool:
        return merged(path) in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._nodes))

    def node(self, path: str) -> Node:
        return self._nodes[merged(path)]

    def read(self, path: str) -> bytes:
        return self.node(path).read()

    def below(self, folder: str) -> list[str]:
        """Paths of all entries below the folder, sorted."""
        return [path for path in self if path.startswith(f"{folder}/")]

    def add(self, path: str, node: Node) -> None:
        """A folder that is there already keeps its owner and mode, as dpkg does it."""
        path = merged(path)
        there = self._nodes.get(path)
        if there is not None and there.kind == node.kind == tarfile.DIRTYPE:
            return
        if node.kind == tarfile.LNKTYPE:
            node = replace(node, link=merged(node.link))
        self._nodes[path] = node

    def write(self, path: str, content: bytes | str, mode: int = 0o644, gid: int = 0) -> None:
        data = content.encode() if isinstance(content, str) else content
        self._put(path, Node(mode=mode, gid=gid, content=data, size=len(data)))

    def symlink(self, path: str, target: str) -> None:
        self._put(path, Node(kind=tarfile.SYMTYPE, mode=0o777, link=target))

    def folder(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        if path not in self:
            self._put(path, Node(kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid))

    def merge_usr(self, shipped: Collection[str]) -> None:
        """Makes the links of merged /usr for these top folders, of which packages ship files."""
        for name in ALIASED:
            if name in shipped:
                self._nodes[f"/{name}"] = Node(kind=tarfile.SYMTYPE, mode=0o777, link=f"usr/{name}")
                self.folder(f"/usr/{name}")

    def write_tar(self, target: Path) -> None:
        """Sorted by path, owners by number, times as packaged and 0 for what was made here. Blocks."""
        write_tar(target, self._ordered())

    def _put(self, path: str, node: Node) -> None:
        """With the folders above it."""
        path = merged(path)
        above = path.rpartition("/")[0]
        if above and above not in self._nodes:
            self._put(above, Node(kind=tarfile.DIRTYPE, mode=0o755))
        self._nodes[path] = node

    def _ordered(self) -> Iterator[tuple[str, Node]]:
        """Of files with several names the first has the content."""
        first: dict[str, str] = {}
        for path in self:
            node = self._nodes[path]
            if node.kind in (tarfile.LNKTYPE, tarfile.REGTYPE):
                original = node.link if node.kind == tarfile.LNKTYPE else path
                if original in first:
                    same = replace(self._nodes[original], kind=tarfile.LNKTYPE, link=first[original])
                    yield path, replace(same, content=b"", source=None, size=0)
                    continue
                first[original] = path
                node = self._nodes[original]
            yield path, node


def write_tar(target: Path, entries: Iterable[tuple[str, Node]]) -> None:
    """Entries by absolute path, in this order, as a tar."""
    with tarfile.open(target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, node in entries:
            entry = tarfile.TarInfo(path.lstrip("/") or "./")
            entry.type, entry.mode, entry.uid, entry.gid = node.kind, node.mode, node.uid, node.gid
            entry.mtime, entry.linkname = node.mtime, node.link
            if node.kind == tarfile.LNKTYPE:
                entry.linkname = node.link.lstrip("/")
            entry.size = node.size
            if node.source is None:
                tar.addfile(entry, io.BytesIO(node.content))
            else:
                # As much as the entry says: one file of a package may be larger than the memory.
                with node.source.open("rb") as file:
                    file.seek(node.offset)
                    tar.addfile(entry, file)


def merged(path: str) -> str:
    """The path with merged /usr."""
    top = path.split("/", 2)[1]
    return f"/usr{path}" if top in ALIASED and path != f"/{top}" else path
