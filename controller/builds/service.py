"""What users do with builds, short of building: accept, read, list."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from controller.access import new_id
from controller.builds.model import ArtifactKind, Build, BuildTarget, ContextFile
from controller.builds.targets import TargetProfile
from controller.builds.uploads import UploadStore
from controller.errors import FailedPrecondition, InvalidRequest, NotFound
from controller.events.model import EventKind, NewEvent, Project
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from controller.store import Store, Transaction
from controller.store.rows import Page
from longshore.errors import Reason

# Of a file name and of a path in bytes, as Linux has them, and of folders in folders.
LONGEST_NAME, LONGEST_PATH, DEEPEST_PATH = 255, 2000, 64


def new_build(project: Project, spec: Spec, source: bytes, files: Sequence[ContextFile]) -> Build:
    """A build of each target profile that the spec names, queued; platforms are filled in by `BuildService.add`."""
    wanted = {target.key: target for target in spec.targets}
    targets = tuple(BuildTarget(key, one.profile, "", ArtifactKind(one.artifact)) for key, one in wanted.items())
    return Build(
        new_id("b"), project.user_id, project.project_id, spec.name, source, tuple(files), targets, time.time()
    )


def target_event(build: Build, target: BuildTarget) -> NewEvent:
    """The event that says in which state a target is."""
    return NewEvent(
        project=Project(build.user_id, build.project_id),
        kind=EventKind.BUILD,
        state=target.state.value,
        build_id=build.id,
        reason=target.reason,
        message=f"{target.key}: {target.message}" if target.message else target.key,
    )


class BuildService:
    def __init__(self, store: Store, uploads: UploadStore, profiles: dict[str, TargetProfile]) -> None:
        self._store = store
        self._uploads = uploads
        self._profiles = profiles

    async def create(self, project: Project, source: bytes, files: Sequence[ContextFile], request_id: str) -> Build:
        """Accepts a build. Errors: InvalidSpec, InvalidRequest, FailedPrecondition MISSING_UPLOADS."""
        spec = await asyncio.to_thread(self.accept, source, files)
        build = new_build(project, spec, source, files)
        return await self._store.transact(lambda tx: self._create(tx, build, request_id))

    async def get(self, build_id: str) -> Build:
        """Raises NotFound."""
        build = await self._store.transact(lambda tx: tx.builds.get(build_id))
        if build is None:
            raise NotFound(Reason.NO_SUCH_BUILD, f"no build {build_id}")
        return build

    async def page(self, project: Project | None, user_id: str, page: Page) -> tuple[list[Build], str]:
        return await self._store.transact(lambda tx: tx.builds.page(project, user_id, page))

    def add(self, tx: Transaction, build: Build, request_id: str) -> None:
        """Queues a build, with an event for each target."""
        targets = tuple(replace(target, platform=self._profiles[target.profile].platform) for target in build.targets)
        build = replace(build, targets=targets)
        tx.builds.add(build, request_id)
        for target in targets:
            tx.events.append(target_event(build, target))

    def accept(self, source: bytes, files: Sequence[ContextFile] | None) -> Spec:
        """The spec, once it and the files (where they matter) are what can be built. Blocks: for the largest, seconds.

        Errors: InvalidSpec, InvalidRequest, FailedPrecondition MISSING_UPLOADS.
        """
        spec = load_spec(source, known_profiles=self._profiles)
        if files is not None:
            self.require_files(spec, files)
        return spec

    def require_files(self, spec: Spec, files: Sequence[ContextFile]) -> None:
        """Every file that the spec names is listed, nothing else is, and all contents are uploaded.

        Errors: InvalidRequest, FailedPrecondition MISSING_UPLOADS.
        """
        check_listed(spec.build.files, [file.path for file in files])
        missing = sorted({file.digest for file in files if not self._uploads.stat(file.digest)[0]})
        if missing:
            message = f"{len(missing)} contents are not uploaded, the first is {missing[0]}; send them by WriteUpload"
            raise FailedPrecondition(Reason.MISSING_UPLOADS, message, missing=",".join(missing[:50]))

    def _create(self, tx: Transaction, build: Build, request_id: str) -> Build:
        project = Project(build.user_id, build.project_id)
        if request_id and (earlier := tx.builds.by_request(project, request_id)):
            return earlier
        self.add(tx, build, request_id)
        stored = tx.builds.get(build.id)
        if stored is None:
            raise RuntimeError("a build that was just stored is gone")
        return stored


def check_listed(wanted: Sequence[str], listed: Collection[str]) -> None:
    """Raises InvalidRequest where the listed paths are not those that `build.files` names, or make no tree."""
    for path in listed:
        _check_path(path)
    if len(present := set(listed)) != len(listed):
        raise InvalidRequest("files", "a path is listed twice")
    entries, ordered = set(wanted), sorted(present)
    for path in ordered:
        above = list(_above(path))
        if inside := next((folder for folder in above if folder in present), None):
            raise InvalidRequest("files", f"{inside!r} is listed as a file and has files below it, such as {path!r}")
        if "." not in entries and path not in entries and not any(folder in entries for folder in above):
            raise InvalidRequest("files", f"{path!r} is not named by build.files of the spec")
    for entry in entries:
        if entry != "." and entry not in present and not _has_below(ordered, entry):
            raise InvalidRequest("files", f"build.files names {entry!r}, and no such file was sent")
    if "." in entries and not ordered:
        raise InvalidRequest("files", "build.files names '.', and no file was sent")


def _check_path(path: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > LONGEST_NAME for part in parts) or "\0" in path:
        raise InvalidRequest("files", f"{path[:200]!r} is not a plain relative path, such as model/digits.onnx")
    if len(path.encode()) > LONGEST_PATH or len(parts) > DEEPEST_PATH:
        limits = f"at most {LONGEST_PATH} bytes and {DEEPEST_PATH} levels are allowed"
        raise InvalidRequest("files", f"{path[:200]!r}... is too long; {limits}")


def _above(path: str) -> Iterator[str]:
    """The folders in which a file lies."""
    at = path.find("/")
    while at != -1:
        yield path[:at]
        at = path.find("/", at + 1)


def _has_below(ordered: Sequence[str], folder: str) -> bool:
    at = bisect_left(ordered, f"{folder}/")
    return at < len(ordered) and ordered[at].startswith(f"{folder}/")
