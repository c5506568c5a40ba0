"""A build's context folder: the Containerfile, and the user's files below `files/`, by hard links where it can be.

Modes and modification times are always the same for the same content, since Podman's layer cache looks at them.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from controller.builds.model import BuildFailed, ContextFile
from controller.builds.uploads import UploadStore
from controller.errors import NotFound

MAX_PATH_BYTES = 4000


def write_context(folder: Path, containerfile: str, files: Sequence[ContextFile], uploads: UploadStore) -> None:
    """Makes `folder`, which is not there yet. Raises BuildFailed for a bad path or a missing upload; blocks."""
    root = folder / "files"
    root.mkdir(parents=True, mode=0o755)
    (folder / "Containerfile").write_text(containerfile, encoding="utf-8")
    check_paths(files)
    for file in sorted(files, key=lambda file: file.path):
        try:
            source = uploads.path(file.digest)
        except NotFound as error:
            raise BuildFailed("UploadMissing", f"{file.path}: {error.message}") from error
        _place(source, root / file.path, file.executable)
    for current, _, _ in os.walk(root, topdown=False):
        Path(current).chmod(0o755)
        os.utime(current, (0, 0))


def check_paths(files: Sequence[ContextFile]) -> None:
    """Raises BuildFailed where a path leads out of the folder, comes twice, or is a file and a folder at once."""
    seen: set[str] = set()
    folders: set[str] = set()
    for path in (file.path for file in files):
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
            raise BuildFailed("BadPath", f"{path!r} is not a path below the context; name it such as model/digits.onnx")
        if path in seen:
            raise BuildFailed("BadPath", f"{path!r} comes twice; name it once")
        seen.add(path)
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    if both := sorted(seen & folders):
        raise BuildFailed("BadPath", f"{both[0]!r} is a file and a folder at once")


def _place(source: Path, target: Path, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if executable:
        # A mode of its own needs an inode of its own.
        _copy(source, target, 0o755)
        return
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or too many links of one content.
        _copy(source, target, 0o644)


def _copy(source: Path, target: Path, mode: int) -> None:
    shutil.copyfile(source, target)
    target.chmod(mode)
    os.utime(target, (0, 0))
