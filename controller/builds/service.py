"""What users do with builds, short of building: accept, read, list, cancel."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.access import new_id
from controller.builds.cache_key import cache_key
from controller.builds.expansions import Expansions
from controller.builds.jobs import target_job
from controller.builds.listing import check_listed
from controller.builds.logs import BuildLogs
from controller.builds.model import ArtifactKind, Build, BuildState, BuildTarget, ContextFile, TargetJob
from controller.builds.places import Positions, QueuePlaces
from controller.builds.recording import cancelled, needs_naming, record, target_event
from controller.builds.reuse import Reuse, reuse_line
from controller.builds.secrets import check_secrets
from controller.builds.targets import TargetProfile
from controller.builds.uploads import UploadStore
from controller.errors import FailedPrecondition, InvalidRequest, NotFound
from controller.events.model import Project
from controller.sealing import SecretBox
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from controller.store import Store, Transaction
from controller.store.images import Image
from controller.store.rows import Page
from longshore.errors import Reason

__all__ = ["Accepted", "BuildRequest", "BuildService", "Positions", "require_deployable"]


@dataclass(frozen=True)
class BuildRequest:
    """What a build is asked for with. `targets`: keys of those wanted, all of them where it is empty. `for_devices`: it
    is deployed once it has succeeded. `knows_all`: whether it may consist of files that others than the project's user
    have uploaded."""

    project: Project
    spec: bytes
    files: tuple[ContextFile, ...] = ()
    request_id: str = ""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    no_cache: bool = False
    targets: tuple[str, ...] = ()
    archive: str = ""
    for_devices: bool = False
    knows_all: bool = False

    @property
    def uploader(self) -> str:
        """Whose uploads it may consist of, as `UploadStore` takes it."""
        return "" if self.knows_all else self.project.user_id


@dataclass(frozen=True)
class Accepted:
    """A request that can be built: its spec, and its build as it is to be stored."""

    spec: Spec
    build: Build
    sealed: bytes | None


class BuildService:
    """`registry`: host:port of the registry where artifacts go."""

    def __init__(
        self,
        store: Store,
        uploads: UploadStore,
        profiles: Mapping[str, TargetProfile],
        reuse: Reuse,
        secrets: SecretBox,
        registry: str,
        logs: BuildLogs,
        revisions_keep: int = 20,
    ) -> None:
        """`revisions_keep`: to so many of its last revisions a deployment may return."""
        self._revisions_keep = revisions_keep
        self._store = store
        self._uploads = uploads
        self._expansions = Expansions(uploads)
        self._profiles = profiles
        self._reuse = reuse
        self._secrets = secrets
        self._registry = registry
        self._logs = logs
        self._places = QueuePlaces(store)

    async def create(self, request: BuildRequest) -> Build:
        """Accepts a build; what was built before for an identical request has succeeded at once. A repeated request id
        is answered with the build that it made, whatever else has changed.

        Errors: InvalidSpec, InvalidRequest, FailedPrecondition MISSING_UPLOADS.
        """
        if earlier := await self._store.transact(lambda tx: _earlier(tx, request)):
            return earlier
        accepted = await self.accept(request)
        build = await self._store.transact(lambda tx: self._create(tx, accepted, request))
        if build.id == accepted.build.id:
            await self.announce(build)
        return build

    async def accept(self, request: BuildRequest) -> Accepted:
        """Checks a request to its end and looks up what needs no building; stores nothing. Errors as `create`."""
        spec = await asyncio.to_thread(self._checked_spec, request)
        files = await self._unpacked(request) if request.archive else request.files
        accepted = await asyncio.to_thread(self._accept, request, spec, files)
        if request.no_cache:
            return accepted
        ready = await self._reuse.answer({target.key: target for target in accepted.build.targets})
        return replace(accepted, build=_with_ready(accepted.build, ready))

    def job(self, build: Build, target: BuildTarget) -> TargetJob:
        """What is built for the target, without the values of secrets."""
        return target_job(build, target, load_spec(build.spec), self._registry)

    async def read_spec(self, source: bytes) -> Spec:
        """The spec. Raises InvalidSpec."""
        return await asyncio.to_thread(load_spec, source, self._profiles)

    async def get(self, build_id: str) -> Build:
        """Raises NotFound."""
        return await self._store.transact(lambda tx: _existing(tx, build_id))

    async def page(self, project: Project | None, user_id: str, page: Page) -> tuple[list[Build], str]:
        return await self._store.transact(lambda tx: tx.builds.page(project, user_id, page))

    async def images(self, project: Project | None, user_id: str, page: Page) -> tuple[list[Image], str]:
        """The artifacts of builds, newest first, and the token of the next page."""
        return await self._store.transact(lambda tx: tx.images.page(project, user_id, page, self._revisions_keep))

    async def positions(self, builds: Iterable[Build]) -> Positions:
        """Where in the queue the waiting targets of these builds are; empty where none of them waits."""
        waiting = {
            (build.id, each.key) for build in builds for each in build.targets if each.state is BuildState.QUEUED
        }
        return await self._places.of(waiting) if waiting else {}

    async def cancel(self, build_id: str) -> Build:
        """The wish is durable: waiting targets are CANCELLED now, those that run once they have ended. Harmless for a
        build that has ended. Raises NotFound."""
        return await self._store.transact(lambda tx: _cancel(tx, build_id), frees=True)

    def add(self, tx: Transaction, accepted: Accepted, request_id: str) -> None:
        """Stores a build, with an event for each target. What is not ready waits from now on."""
        build = accepted.build
        tx.builds.add(build, request_id, None if _all_done(build) else accepted.sealed)
        for target in build.targets:
            tx.events.append(target_event(build, target))

    async def announce(self, build: Build) -> None:
        """The log of a build that was just stored says what needs no building."""
        for target in build.targets:
            if target.cached_from:
                self._logs.append(build.id, target.key, "system", reuse_line(target))
        if build.ended:
            await self._logs.finish(build.id)
        else:
            self._logs.close(build.id)

    def _checked_spec(self, request: BuildRequest) -> Spec:
        """Blocks: for the largest spec, seconds."""
        spec = load_spec(request.spec, known_profiles=self._profiles)
        if request.for_devices:
            require_deployable(spec)
        field = "build_secrets" if request.for_devices else "secrets"
        check_secrets(spec.build.secrets, request.secrets, field)
        _wanted(spec, request.targets)
        if request.archive and request.files:
            raise InvalidRequest("archive", "files are listed as well; send either files or an archive")
        return spec

    def _accept(self, request: BuildRequest, spec: Spec, files: tuple[ContextFile, ...]) -> Accepted:
        """Blocks."""
        check_listed(spec.build.files, [file.path for file in files])
        # Those of an archive came with it.
        self._require_uploaded([file.digest for file in files], "" if request.archive else request.uploader)
        wanted = _wanted(spec, request.targets)
        build = Build(
            new_id("b"), request.project.user_id, request.project.project_id, spec.name, request.spec, files,
            tuple(wanted), time.time(), tags=tuple(spec.build.tags), no_cache=request.no_cache,
        )  # fmt: skip
        targets = tuple(self._named(build, target, spec, request.secrets) for target in wanted)
        return Accepted(spec, replace(build, targets=targets), self._secrets.seal(request.secrets))

    def _named(self, build: Build, target: BuildTarget, spec: Spec, secrets: Mapping[str, bytes]) -> BuildTarget:
        """The target with its platform, and with its cache key where its artifact may be for others too."""
        profile = self._profiles[target.profile]
        job = target_job(build, target, spec, self._registry, secrets)
        name = cache_key(job, profile, self._secrets) if spec.build.push else ""
        return replace(target, platform=profile.platform, cache_key=name)

    async def _unpacked(self, request: BuildRequest) -> tuple[ContextFile, ...]:
        """The files of the archive, which are uploaded where the archive is. Errors as those of `expand`."""
        await asyncio.to_thread(self._require_uploaded, [request.archive], request.uploader)
        return await self._expansions.files(request.archive)

    def _require_uploaded(self, digests: Iterable[str], uploader: str) -> None:
        """Blocks. Raises FailedPrecondition where this user has not uploaded one of them."""
        missing = sorted({digest for digest in digests if not self._uploads.stat(digest, uploader).complete})
        if missing:
            message = f"{len(missing)} contents are not uploaded, the first is {missing[0]}; send them by WriteUpload"
            raise FailedPrecondition(Reason.MISSING_UPLOADS, message, missing=",".join(missing[:50]))

    def _create(self, tx: Transaction, accepted: Accepted, request: BuildRequest) -> Build:
        if earlier := _earlier(tx, request):
            return earlier
        self.add(tx, accepted, request.request_id)
        return _existing(tx, accepted.build.id)


def _earlier(tx: Transaction, request: BuildRequest) -> Build | None:
    """The build that this request made already."""
    return tx.builds.by_request(request.project, request.request_id) if request.request_id else None


def require_deployable(spec: Spec) -> None:
    """Raises InvalidRequest for a spec whose artifacts no device can fetch."""
    if not spec.build.push:
        message = "build.push is false: the result stays with the builder, and no device could fetch it; remove it"
        raise InvalidRequest("spec", message)


def _wanted(spec: Spec, keys: Sequence[str]) -> list[BuildTarget]:
    """The targets of the spec that are wanted. Raises InvalidRequest for one that it does not have."""
    known = {target.key: target for target in spec.targets}
    if unknown := [key for key in keys if key not in known]:
        raise InvalidRequest("targets", f"the spec has no target {unknown[0]!r}; it has {', '.join(known)}")
    chosen = [target for key, target in known.items() if not keys or key in keys]
    return [BuildTarget(target.key, target.profile, "", ArtifactKind(target.artifact)) for target in chosen]


def _with_ready(build: Build, ready: Mapping[str, BuildTarget]) -> Build:
    build = replace(build, targets=tuple(ready.get(target.key, target) for target in build.targets))
    return replace(build, join_next=time.time()) if _all_done(build) and needs_naming(build) else build


def _all_done(build: Build) -> bool:
    return all(target.done for target in build.targets)


def _cancel(tx: Transaction, build_id: str) -> Build:
    build = _existing(tx, build_id)
    if build.ended or build.cancel_requested or _all_done(build):
        return build
    tx.builds.change(replace(build, cancel_requested=True))
    for target in build.targets:
        if target.state is BuildState.QUEUED:
            record(tx, build_id, cancelled(target))
    tx.builds.tell_cancelled(build_id)
    return _existing(tx, build_id)


def _existing(tx: Transaction, build_id: str) -> Build:
    build = tx.builds.get(build_id)
    if build is None:
        raise NotFound(Reason.NO_SUCH_BUILD, f"no build {build_id}")
    return build
