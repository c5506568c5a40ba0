"""Files as layers of a bundle: archives that are the same for the same files, whoever packs them and when."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from controller.builds.blobs import Blob
from controller.builds.model import BuildFailed, ContextFile
from controller.builds.uploads import UploadStore
from controller.errors import NotFound

FILES_TYPE = "application/vnd.longshore.bundle.files.v1.tar+gzip"
WHEEL_TYPE = "application/vnd.longshore.bundle.wheel.v1+zip"
TITLE = "org.opencontainers.image.title"
# Below the folder that a device unpacks a bundle to.
APPLICATION, RUNTIME = "files", "runtime"


@dataclass(frozen=True)
class Entry:
    """One file of a layer; `content` is it, or where it lies."""

    path: str
    content: bytes | Path
    executable: bool = False


def application_entries(files: Iterable[ContextFile], uploads: UploadStore) -> list[Entry]:
    """The user's files. Raises BuildFailed where one is not there any more."""
    entries = []
    for file in files:
        try:
            entries.append(Entry(f"{APPLICATION}/{file.path}", uploads.path(file.digest), file.executable))
        except NotFound as error:
            raise BuildFailed("UploadMissing", f"{file.path}: {error.message}") from error
    return entries


def pack(entries: Sequence[Entry], title: str, target: Path) -> Blob:
    """Writes the layer to `target`. Blocks. Raises OSError."""
    # Neither name nor time in gzip's header, neither owner nor time in tar's.
    with (
        target.open("wb") as out,
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in sorted(entries, key=lambda entry: entry.path):
            _add(archive, entry)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Blob(FILES_TYPE, f"sha256:{digest}", target.stat().st_size, target, ((TITLE, title),))


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mode = 0o755 if entry.executable else 0o644
    with _opened(entry.content) as content:
        member.size = content.seek(0, io.SEEK_END)
        content.seek(0)
        archive.addfile(member, content)


def _opened(content: bytes | Path) -> IO[bytes]:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
