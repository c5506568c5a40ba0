"""The cache by which programs find shared libraries, `/etc/ld.so.cache`, for any architecture.

ldconfig knows the formats of its own architecture only. Layout: glibc, sysdeps/generic/dl-cache.h; elf(5).
"""

import re
import struct
import tarfile
from dataclasses import dataclass

from controller.builds.debian.tree import Tree, merged

# By Debian's name: the folder, and the flags that mark a library of the architecture.
TRIPLETS = {
    "amd64": ("x86_64-linux-gnu", 0x0303),
    "arm64": ("aarch64-linux-gnu", 0x0A03),
    "armhf": ("arm-linux-gnueabihf", 0x0903),
}
NAMED = re.compile(r"(lib|ld-)[^/]*\.so[^/]*")
MAGIC, LITTLE_ENDIAN, HEADER, ENTRY = b"glibc-ld.so.cache1.1", 2, 48, 24
PT_LOAD, PT_DYNAMIC, DT_STRTAB, DT_SONAME = 1, 2, 5, 14


def write_cache(tree: Tree, architecture: str) -> None:
    """Writes the cache of the libraries in the standard folders.

    Without effect for an architecture whose marks are not known: programs then search the standard folders.
    """
    if architecture in TRIPLETS:
        tree.write("/etc/ld.so.cache", _cache(find_libraries(tree, architecture), TRIPLETS[architecture][1]))
        tree.folder("/var/cache/ldconfig", 0o700)


def extended_cache(cache: bytes, tree: Tree, architecture: str) -> bytes:
    """The cache, and the libraries that the tree adds. Raises ValueError for one of another format."""
    if architecture not in TRIPLETS or not cache.startswith(MAGIC):
        raise ValueError("not a cache of libraries that is known")
    count = struct.unpack_from("<I", cache, len(MAGIC))[0]
    known: dict[str, str] = {}
    for number in range(count):
        _, key, value, _, _ = struct.unpack_from("<iIIIQ", cache, HEADER + ENTRY * number)
        known[_text(cache, key)] = _text(cache, value)
    return _cache({**find_libraries(tree, architecture), **known}, TRIPLETS[architecture][1])


def find_libraries(tree: Tree, architecture: str) -> dict[str, str]:
    """Paths by the name under which programs ask for them."""
    triplet, _ = TRIPLETS[architecture]
    folders = [f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib", "/usr/lib"]
    found: dict[str, str] = {}
    for folder in folders:
        for path in tree.below(merged(folder)):
            above, _, name = path.rpartition("/")
            if above == merged(folder) and NAMED.fullmatch(name) and soname(_content(tree, path)) == name:
                found.setdefault(name, f"{folder}/{name}")
    return found


def _text(content: bytes, position: int) -> str:
    return content[position : content.index(b"\0", position)].decode()


def soname(content: bytes) -> str:
    """The name under which programs ask for this library; "" where it is none."""
    try:
        return _soname(content)
    except (struct.error, ValueError, LookupError, OverflowError):
        return ""


@dataclass(frozen=True)
class _Layout:
    """What differs between 32 and 64 bits, little-endian: formats, and places of the fields."""

    header: str
    program: str
    offset: int
    address: int
    size: int
    dynamic: str


LAYOUTS = {
    1: _Layout("<16xHHIIIIIHHH", "<IIIIIIII", 1, 2, 4, "<iI"),
    2: _Layout("<16xHHIQQQIHHH", "<IIQQQQQQ", 2, 3, 5, "<qQ"),
}


def _soname(content: bytes) -> str:
    if content[:4] != b"\x7fELF" or content[5] != 1:
        return ""
    layout = LAYOUTS[content[4]]
    header = struct.unpack_from(layout.header, content)
    start, size, count = header[4], header[8], header[9]
    programs = [struct.unpack_from(layout.program, content, start + number * size) for number in range(count)]
    dynamic = next((program for program in programs if program[0] == PT_DYNAMIC), None)
    if dynamic is None:
        return ""
    part = content[dynamic[layout.offset] : dynamic[layout.offset] + dynamic[layout.size]]
    tags = dict(reversed(list(struct.iter_unpack(layout.dynamic, part))))
    place = tags[DT_STRTAB] + tags[DT_SONAME]
    for program in programs:
        begin = program[layout.address]
        if program[0] == PT_LOAD and begin <= place < begin + program[layout.size]:
            position = program[layout.offset] + place - begin
            return content[position : content.index(b"\0", position)].decode()
    return ""


def _content(tree: Tree, path: str) -> bytes:
    """Of a file, through links of its own folder or absolute ones."""
    for _ in range(8):
        if path not in tree:
            return b""
        node = tree.node(path)
        if node.kind != tarfile.SYMTYPE:
            return node.read() if node.kind == tarfile.REGTYPE else b""
        path = node.link if node.link.startswith("/") else f"{path.rpartition('/')[0]}/{node.link}"
    return b""


def _cache(libraries: dict[str, str], flags: int) -> bytes:
    """Entries in the order in which the loader's binary search expects them, from last to first."""
    names = sorted(libraries, key=_order, reverse=True)
    strings, entries = b"", b""
    beginning = HEADER + ENTRY * len(names)
    for name in names:
        path = libraries[name]
        value = beginning + len(strings)
        entries += struct.pack("<iIIIQ", flags, value + len(path) - len(name), value, 0, 0)
        strings += path.encode() + b"\0"
    header = struct.pack("<20sIIB3xI12x", MAGIC, len(names), len(strings), LITTLE_ENDIAN, 0)
    return header + entries + strings


def _order(name: str) -> tuple[tuple[int, int], ...]:
    """Numbers by value, and after all else."""
    parts = re.findall(r"\d+|\D", name)
    return tuple((1, int(part)) if part.isdigit() else (0, ord(part)) for part in parts)
