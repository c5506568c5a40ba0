"""Files of a build that come as one archive: tar, tar.gz, tar.xz or zip.

Paths stay as they are in the archive, also a folder that holds all the others. A link to a file of the archive becomes
that file; any other link is refused, as is whatever else could not be a plain file below the build's folder.
"""

import posixpath
import unicodedata
from dataclasses import replace
from pathlib import Path

from controller.builds.archive_limits import ArchiveLimits
from controller.builds.archive_readers import BadArchive, Entry, Kind, Meter, entries
from controller.builds.intake import Intake
from controller.builds.listing import DEEPEST_PATH, LONGEST_NAME, LONGEST_PATH
from controller.builds.model import ContextFile
from controller.builds.uploads import UploadStore
from controller.errors import FailedPrecondition, InvalidRequest
from longshore.errors import Reason

MOST_LINKS_IN_A_ROW = 8


def expand(digest: str, uploads: UploadStore, limits: ArchiveLimits | None = None) -> tuple[ContextFile, ...]:
    """The files of an uploaded archive, each a content of its own in the uploads; in the order of their paths.

    `limits`: the uploads' own where they are not given. Blocks as long as reading all of it takes. After a refusal,
    none of them is there. Errors: InvalidRequest, FailedPrecondition MISSING_UPLOADS, ResourceExhausted DISK_FULL.
    """
    if not uploads.stat(digest).complete:
        message = f"the archive {digest} is not uploaded; send it by WriteUpload"
        raise FailedPrecondition(Reason.MISSING_UPLOADS, message, missing=digest)
    try:
        with uploads.intake() as intake:
            files = _Expansion(uploads.path(digest), intake, limits or uploads.archive_limits).run()
            intake.commit()
            return files
    except BadArchive as error:
        raise InvalidRequest("archive", str(error)) from error


class _Expansion:
    def __init__(self, path: Path, intake: Intake, limits: ArchiveLimits) -> None:
        self._path = path
        self._intake = intake
        self._limits = limits
        self._files: dict[str, ContextFile] = {}
        self._folders: set[str] = set()
        # Path of a symbolic link -> path of what it leads to.
        self._links: dict[str, str] = {}

    def run(self) -> tuple[ContextFile, ...]:
        for number, entry in enumerate(entries(self._path, self._meter(), self._limits.max_files)):
            if number >= self._limits.max_files:
                raise BadArchive(f"it has more than {self._limits.max_files} entries")
            self._take(entry)
        for path in self._links:
            self._files[path] = replace(self._resolved(path), path=path)
        self._check_tree()
        return tuple(self._files[path] for path in sorted(self._files))

    def _meter(self) -> Meter:
        size = self._path.stat().st_size
        by_ratio = max(size * self._limits.max_ratio, self._limits.freely)
        if by_ratio < self._limits.max_bytes:
            return Meter(by_ratio, f"its {size} bytes unpack to more than {by_ratio}: {self._limits.max_ratio}-fold")
        return Meter(self._limits.max_bytes, f"it unpacks to more than {self._limits.max_bytes} bytes")

    def _take(self, entry: Entry) -> None:
        path = _plain_path(entry.name)
        if entry.kind is Kind.FOLDER:
            self._folders |= {path} - {""}
            return
        if not path:
            raise BadArchive(f"{entry.name!r} names the folder itself and is none")
        if path in self._files or path in self._links:
            raise BadArchive(f"{path!r} is in it twice")
        if entry.kind is Kind.FILE:
            digest, size = self._intake.add(entry.read)
            self._files[path] = ContextFile(path, digest, size, entry.executable)
        elif entry.kind is Kind.HARD_LINK:
            self._files[path] = replace(self._linked_file(path, _plain_path(entry.target)), path=path)
        else:
            self._links[path] = _inside(path, entry.target)

    def _linked_file(self, path: str, target: str) -> ContextFile:
        if target not in self._files:
            raise BadArchive(f"{path!r} is a link to {target!r}, which is no file of the archive")
        return self._files[target]

    def _resolved(self, path: str) -> ContextFile:
        target = path
        for _ in range(MOST_LINKS_IN_A_ROW):
            if target not in self._links:
                break
            target = self._links[target]
        return self._linked_file(path, target)

    def _check_tree(self) -> None:
        """A file that is also a folder could be neither."""
        for path in [*self._files, *self._folders]:
            above = posixpath.dirname(path)
            while above:
                if above in self._files:
                    raise BadArchive(f"{above!r} is in it as a file and has {path!r} below it")
                above = posixpath.dirname(above)
        if twice := self._folders & self._files.keys():
            raise BadArchive(f"{min(twice)!r} is in it as a file and as a folder")


def _plain_path(name: str) -> str:
    """The path without the "./" and "/" around it that archivers write; "" for the folder itself."""
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[2:3] in ("\\", "/")):
        raise BadArchive(f"{_shown(name)} is an absolute path")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise BadArchive(f"{_shown(name)} has a control character, or is not UTF-8")
    path = name.rstrip("/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    if path in ("", "."):
        return ""
    parts = path.split("/")
    if ".." in parts:
        raise BadArchive(f"{_shown(name)} leads out of the archive by '..'")
    if any(part in ("", ".") for part in parts):
        raise BadArchive(f"{_shown(name)} is not a plain path, such as model/digits.onnx")
    if len(parts) > DEEPEST_PATH:
        raise BadArchive(f"{_shown(name)} lies deeper than {DEEPEST_PATH} folders")
    if len(path.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise BadArchive(f"{_shown(name)} is too long: at most {LONGEST_PATH} bytes, {LONGEST_NAME} for each name")
    return path


def _inside(path: str, target: str) -> str:
    """Where a symbolic link leads, as a path of the archive."""
    if target.startswith("/"):
        raise BadArchive(f"{path!r} is a link to {_shown(target)}, out of the archive")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if joined == ".." or joined.startswith("../"):
        raise BadArchive(f"{path!r} is a link to {_shown(target)}, out of the archive")
    return joined


def _shown(name: str) -> str:
    return repr(name[:200])
