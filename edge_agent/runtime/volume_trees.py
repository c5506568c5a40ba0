"""The unpacked files of versions of project volumes, side by side, each whole or not there. Blocks: for threads.

DIGEST/files        what instances see
DIGEST/index.json   path and size of each file
"""

import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from edge_agent.runtime.blobs import BlobStore
from edge_agent.runtime.files import sync_file, sync_folder, write_durably
from edge_agent.runtime.unpacking import unpack
from edge_agent.runtime.volume_manifest import LargeFile, VolumeManifest

FILES, INDEX = "files", "index.json"
UNFINISHED = ".new-"


class VolumeTrees:
    """Below `folder`, on the file system of the blobs: a large file is its blob by another name."""

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        self._folder = folder
        self._blobs = blobs
        self._placing = threading.Lock()

    def find(self, digest: str) -> Path | None:
        """Its files, if all are there with the sizes that they had."""
        folder = self._path(digest)
        try:
            index = json.loads((folder / INDEX).read_text())
            sound = all((folder / FILES / path).stat().st_size == size for path, size in index)
        except (OSError, ValueError):
            return None
        return folder / FILES if sound else None

    def is_damaged(self, digest: str) -> bool:
        """Whether it was made and is not whole any more."""
        return self._path(digest).exists() and self.find(digest) is None

    def make(self, digest: str, manifest: VolumeManifest) -> None:
        """Afterwards `find` has it, also after a power cut. Its parts are blobs. Raises UnsafeLayer, DamagedLayer,
        OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f"{UNFINISHED}{_name(digest)}-{uuid.uuid4().hex[:8]}"
        files = fresh / FILES
        files.mkdir(parents=True)
        try:
            for group in manifest.groups:
                unpack(self._blobs.path(group.digest), group.digest, files, None)
            for large in manifest.large:
                self._place(large, files)
            _settle(files)
            index = [(str(path.relative_to(files)), path.stat().st_size) for path in _files(files)]
            write_durably(fresh / INDEX, json.dumps(index).encode(), 0o600)
            self._put(digest, fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync_folder(self._folder)

    def _put(self, digest: str, fresh: Path) -> None:
        """Takes the place of no whole one, which instances may see: a thread that was abandoned may come late."""
        with self._placing:
            if self.find(digest) is None:
                self.remove(digest)
                fresh.rename(self._path(digest))
            else:
                shutil.rmtree(fresh, ignore_errors=True)

    def _place(self, large: LargeFile, files: Path) -> None:
        blob, place = self._blobs.path(large.part.digest), files / large.part.title
        place.parent.mkdir(parents=True, exist_ok=True)
        if large.executable:
            shutil.copyfile(blob, place)
            place.chmod(0o755)
        else:
            # Whatever the umask: a workload reads it as another user.
            blob.chmod(0o644)
            place.hardlink_to(blob)

    def keep_only(self, digests: frozenset[str]) -> None:
        """All other trees are gone."""
        names = {_name(digest) for digest in digests}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in names and not path.name.startswith(UNFINISHED):
                self.remove(path.name)

    def sweep(self) -> None:
        """What a break has left in the middle of making is gone. Not while one is made."""
        for path in self._folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def remove(self, digest: str) -> None:
        """At no moment is a part of it there under its name."""
        if self._path(digest).exists():
            gone = self._folder / f"{UNFINISHED}gone-{uuid.uuid4().hex[:8]}"
            self._path(digest).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _path(self, digest: str) -> Path:
        return self._folder / _name(digest)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _settle(folder: Path) -> None:
    """All of it is on the disk, and others may look into it."""
    for path in _files(folder):
        sync_file(path)
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o755)
        sync_folder(Path(parent))
    folder.parent.chmod(0o755)


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")
