"""A build's context folder: all that a Containerfile copies and reads, so that `podman build` needs nothing else.

    Containerfile
    packages/   lists of packages, by kind
    runtime/    files of the runtime
    large/NN/   a large file of the user, each as a layer of its own
    files/      all other files of the user
    prepared/   what was made outside of Podman; written by controller.builds.prepare

Modes and modification times are always the same for the same content, since Podman's layer cache looks at them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.builds.full_disk import FULL
from controller.builds.layers import file_layers
from controller.builds.model import BuildFailed, ContextFile, TargetJob
from controller.builds.plan import plan_image
from controller.builds.prepare import Prepared
from controller.builds.targets import TargetProfile
from controller.builds.uploads import UploadStore
from controller.errors import NotFound
from controller.rendering import CannotQuote, ImagePlan, render

MAX_PATH_BYTES = 4000
# Folders that are written here; the others are somebody else's.
OWN_FOLDERS = ("packages", "runtime", "large", "files")


@dataclass(frozen=True)
class ContextEntry:
    """One file of the context; `content` is itself or where it lies."""

    path: str
    content: bytes | Path
    executable: bool = False

    @property
    def mode(self) -> int:
        return 0o755 if self.executable else 0o644


def make_context(
    folder: Path, job: TargetJob, profile: TargetProfile, base: str, prepared: Prepared, uploads: UploadStore,
    base_digest: str = "",
) -> None:  # fmt: skip
    """Fills `folder`, which may hold what was prepared. `base` is the full name of the base image.

    Raises BuildFailed for what cannot be rendered, a bad path, a missing upload or a full disk; blocks.
    """
    try:
        plan = plan_image(job, profile, base, prepared, base_digest)
        check_paths(job.files)
        write_context(folder, plan, job.files, uploads)
    except CannotQuote as error:
        raise BuildFailed("InvalidSpec", f"the image cannot be described: {error}") from error
    except OSError as error:
        full = error.errno in FULL
        reason = "DiskFull" if full else "BadPath"
        raise BuildFailed(reason, f"cannot write the build context: {error}", retryable=full) from error


def write_context(folder: Path, plan: ImagePlan, files: Sequence[ContextFile], uploads: UploadStore) -> None:
    """Files are hard links of the uploads where they can be. Raises BuildFailed for a missing upload."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    for entry in context_entries(plan, files, uploads):
        _place(entry, folder / entry.path)
    for name in OWN_FOLDERS:
        _settle(folder / name)


def context_entries(plan: ImagePlan, files: Sequence[ContextFile], uploads: UploadStore) -> Iterator[ContextEntry]:
    """All files of the context but the prepared ones, always in the same order. Raises BuildFailed for a missing
    upload."""
    yield ContextEntry("Containerfile", render(plan).encode())
    for read in (*plan.package_lists().values(), *plan.scripts().values()):
        yield ContextEntry(read.path, read.text.encode())
    for name, content in plan.runtime_files:
        yield ContextEntry(f"runtime/{name}", content)
    for folder, layer in file_layers(files).items():
        for file in layer:
            try:
                yield ContextEntry(f"{folder}/{file.path}", uploads.path(file.digest), file.executable)
            except NotFound as error:
                raise BuildFailed("UploadMissing", f"{file.path}: {error.message}") from error


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


def _settle(root: Path) -> None:
    for current, _, _ in os.walk(root, topdown=False):
        Path(current).chmod(0o755)
        os.utime(current, (0, 0))


def _place(entry: ContextEntry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(entry.content, bytes):
        target.write_bytes(entry.content)
        _stamp(target, entry.mode)
        return
    try:
        if entry.executable:
            # A mode of its own needs an inode of its own.
            raise OSError
        os.link(entry.content, target)
    except OSError:
        # Also for another file system, or too many links of one content.
        shutil.copyfile(entry.content, target)
        _stamp(target, entry.mode)


def _stamp(target: Path, mode: int) -> None:
    target.chmod(mode)
    os.utime(target, (0, 0))
