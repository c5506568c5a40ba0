"""The entries of tar and zip archives, one after the other, without trust in anything that they say.

Formats: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html (ustar, pax),
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (zip), RFC 1952 (gzip).
"""

import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import IO, Any

from controller.builds.intake import Read

# Of names and other headers, which are read into memory.
LARGEST_HEADER = 2**20
LONGEST_LINK = 4096
# A central directory of a zip has at least 46 bytes an entry; names make it longer.
DIRECTORY_BYTES_PER_FILE = 1024
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What the readers of the standard library raise for bytes that are no archive: ValueError is also UnicodeDecodeError,
# and a number that no file can have; NotImplementedError and RuntimeError a form of zip that zipfile does not know;
# LookupError a name without a letter.
DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, struct.error,
    ValueError, ArithmeticError, LookupError, TypeError, NotImplementedError, RuntimeError,
)  # fmt: skip


class BadArchive(Exception):
    """The archive is refused; the text says why."""


class Kind(Enum):
    FILE = "file"
    FOLDER = "folder"
    # Another name of an earlier file.
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"


@dataclass(frozen=True)
class Entry:
    """`target` of a link, as it stands there. `read` gives the content of a file, until the next entry is asked for."""

    name: str
    kind: Kind
    executable: bool
    target: str
    read: Read


class Meter:
    """Counts what comes out of an archive."""

    def __init__(self, most: int, message: str) -> None:
        self._left = most
        self._message = message

    def count(self, size: int) -> None:
        """Raises BadArchive when it is too much."""
        self._left -= size
        if self._left < 0:
            raise BadArchive(self._message)

    def over(self, read: Read) -> Read:
        def counted(size: int) -> bytes:
            piece = read(size)
            self.count(len(piece))
            return piece

        return counted


def entries(path: Path, meter: Meter, most_files: int) -> Iterator[Entry]:
    """All entries of the archive. Raises BadArchive, also for one that is damaged or ends too early."""
    with path.open("rb") as file:
        begin = file.read(512)
        file.seek(0)
        reader = _reader(begin)
        with damage():
            for entry in reader(file, meter, most_files):
                yield replace(entry, read=damage()(entry.read))


@contextmanager
def damage() -> Iterator[None]:
    """What the readers of archives raise in the block for bytes that are none is BadArchive."""
    try:
        yield
    except DAMAGED as error:
        raise BadArchive(f"the archive is damaged or not whole: {error}") from error
    except OSError as error:
        # It names a place before its beginning. Whatever else the system says is the disk's fault.
        if error.errno != errno.EINVAL:
            raise
        raise BadArchive("the archive is damaged or not whole: it names a place outside of it") from error


def _reader(begin: bytes) -> Callable[[IO[bytes], Meter, int], Iterator[Entry]]:
    if begin.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip
    if begin.startswith(b"\x1f\x8b"):
        return lambda file, meter, _: _tar(gzip.GzipFile(fileobj=file, mode="rb"), meter)
    if begin.startswith(b"\xfd7zXZ\0"):
        return lambda file, meter, _: _tar(lzma.LZMAFile(file), meter)
    if begin[257:262] == b"ustar":
        return lambda file, meter, _: _tar(file, meter)
    raise BadArchive("it is none of tar, tar.gz, tar.xz and zip")


class _Stream:
    """What tarfile reads from."""

    def __init__(self, read: Read) -> None:
        self.read = read


def _tar(source: Any, meter: Meter) -> Iterator[Entry]:
    read = meter.over(source.read)
    header = _headers()
    with tarfile.open(fileobj=_Stream(read), mode="r|", tarinfo=header, encoding="utf-8", errors="strict") as archive:  # type: ignore[call-overload]
        try:
            for member in archive:
                yield _tar_entry(archive, member)
        except UnicodeDecodeError as error:
            raise BadArchive("a name in it is not UTF-8") from error
    # tarfile takes the middle of an archive for its end where no header can be read.
    if not header.ended:
        raise BadArchive("the archive is damaged or not whole: it has no end")
    # The rest has the check sum of what was compressed.
    while read(2**20):
        pass


def _headers() -> Any:
    class Header(tarfile.TarInfo):
        """Refuses headers that would fill the memory, and notes the end of the archive."""

        ended = False

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
            cls.ended = len(buf) == tarfile.BLOCKSIZE and not buf.strip(b"\0")
            header = super().frombuf(buf, encoding, errors)
            if header.type in HEADERS and header.size > LARGEST_HEADER:
                raise BadArchive(f"it has a header of {header.size} bytes")
            return header

    return Header


def _tar_entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    kinds = {tarfile.DIRTYPE: Kind.FOLDER, tarfile.LNKTYPE: Kind.HARD_LINK, tarfile.SYMTYPE: Kind.SYMBOLIC_LINK}
    if member.issparse():
        raise BadArchive(f"{member.name!r} is stored as a sparse file; make the archive without --sparse")
    if (kind := kinds.get(member.type)) is None and not member.isreg():
        raise BadArchive(f"{member.name!r} is neither a file nor a folder nor a link, but a device or the like")
    content = archive.extractfile(member) if kind is None else None
    read = _nothing if content is None else content.read
    return Entry(member.name, kind or Kind.FILE, bool(member.mode & 0o111), member.linkname, read)


def _zip(file: IO[bytes], meter: Meter, most_files: int) -> Iterator[Entry]:
    if _directory_size(file) > most_files * DIRECTORY_BYTES_PER_FILE:
        raise BadArchive(f"it lists more than {most_files} files")
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise BadArchive(f"{info.filename!r} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadArchive(f"{info.filename!r} is compressed in an unusual way; only deflate is taken")
            kind, mode = _zip_kind(info), info.external_attr >> 16
            target = ""
            if kind is Kind.FOLDER:
                yield Entry(info.orig_filename, kind, False, "", _nothing)
                continue
            with archive.open(info) as content:
                if kind is Kind.SYMBOLIC_LINK:
                    target = content.read(LONGEST_LINK).decode(errors="surrogateescape")
                yield Entry(info.orig_filename, kind, bool(mode & 0o111), target, meter.over(content.read))


def _zip_kind(info: zipfile.ZipInfo) -> Kind:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return Kind.FOLDER
    if kind in (0, stat.S_IFREG):
        return Kind.FILE
    if kind == stat.S_IFLNK:
        return Kind.SYMBOLIC_LINK
    raise BadArchive(f"{info.filename!r} is neither a file nor a folder nor a link, but a device or the like")


def _directory_size(file: IO[bytes]) -> int:
    """Bytes of the central directory, which zipfile reads as a whole; as the end of the archive says."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557 - 20))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at == -1 or len(tail) < at + 22:
        raise BadArchive("the archive is damaged or not whole: it has no end")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    if length == 0xFFFFFFFF and tail[max(0, at - 20) :].startswith(b"PK\x06\x07"):
        (record,) = struct.unpack_from("<Q", tail, at - 20 + 8)
        file.seek(record)
        (length,) = struct.unpack_from("<Q", file.read(56), 40)
    file.seek(0)
    return int(length)


def _nothing(_: int) -> bytes:
    return b""
