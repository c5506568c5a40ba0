"""Gives the artifacts of a build their names in the registry: an index that joins the images, and the tags of the spec.

Durable: when it is due is a row. A registry that is away is asked again, for as long as a build is tried again.
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from functools import partial

import structlog

from controller.builds import registry
from controller.builds.cancelling import in_thread
from controller.builds.index import Member, image_index
from controller.builds.logs import BuildLogs
from controller.builds.model import ArtifactKind, Build, BuildState, BuildTarget, BuiltArtifact, RegistryAccess
from controller.builds.origin import origin
from controller.builds.pushed import OnPushed, nobody
from controller.builds.recording import build_event, existing, made, settle
from controller.builds.registry import INDEX_TYPE, Manifest, RegistryUnreachable
from controller.errors import InvalidSpec
from controller.spec.loader import load_spec
from controller.spec.model import bundle_tag
from controller.store import Store, Transaction

log = structlog.get_logger()
RETRY_FIRST = 1.0
RETRY_LONGEST = 60.0


class Joiner:
    """`run()` until cancelled; the queue of builds runs it."""

    def __init__(
        self,
        store: Store,
        logs: BuildLogs,
        access: RegistryAccess,
        retry_seconds: float,
        on_pushed: OnPushed = nobody,
    ) -> None:
        self._store = store
        self._logs = logs
        self._access = access
        self._retry_seconds = retry_seconds
        self._on_pushed = on_pushed
        self._tries: dict[str, int] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def run(self) -> None:
        """Joins what is due, and what becomes due. Raises what hinders a result from being stored for ever."""
        while True:
            self._wake.clear()
            for build_id in await self._store.insist(lambda tx: tx.queue.to_join(time.time())):
                await self._join(build_id)
            following = await self._store.insist(lambda tx: tx.queue.next_join())
            timeout = None if following is None else max(0.01, following - time.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    async def _join(self, build_id: str) -> None:
        build = await self._store.insist(lambda tx: existing(tx, build_id))
        try:
            index = await self._name(build)
        except RegistryUnreachable as error:
            await self._postpone(build, str(error))
        else:
            await self._end(build, index, "", _said(build, index))

    async def _name(self, build: Build) -> BuiltArtifact | None:
        """Afterwards the registry knows the build's artifacts by all their names. Returns the index where there is
        one."""
        index = await self._name_images(build)
        for target in made(build, ArtifactKind.BUNDLE):
            member = await self._member(target)
            await self._put(build, _artifact(target).repository, member.manifest, target)
        return index

    async def _name_images(self, build: Build) -> BuiltArtifact | None:
        images = made(build, ArtifactKind.IMAGE)
        if not images:
            return None
        repository = _artifact(images[0]).repository
        members = [await self._member(target) for target in images]
        if len(members) == 1:
            await self._put(build, repository, members[0].manifest)
            return None
        body = image_index(members, await in_thread(annotations_of, build))
        size = sum(_artifact(target).size_bytes for target in images)
        index = Manifest(registry.digest_of(body), size, body, INDEX_TYPE)
        await in_thread(self._on_pushed, build.user_id, build.project_id, repository, index.digest)
        await self._put(build, repository, index)
        return BuiltArtifact(repository, index.digest, "", size)

    async def _put(self, build: Build, repository: str, manifest: Manifest, bundle: BuildTarget | None = None) -> None:
        """Afterwards the tags name it. Each is noted by itself: one that could be put names it although another could
        not. Raises RegistryUnreachable."""
        for tag in tags_of(build):
            name = tag if bundle is None else bundle_tag(tag, bundle.key)
            await registry.put_manifest(repository, name, manifest.body, manifest.media_type, self._access)
            if tag != build.id:
                await self._store.insist(partial(_note_tag, repository=repository, tag=name, digest=manifest.digest))

    async def _member(self, target: BuildTarget) -> Member:
        artifact = _artifact(target)
        manifest = await registry.read_manifest(artifact.repository, artifact.digest, self._access)
        return Member(manifest, artifact.platform, target.profile)

    async def _postpone(self, build: Build, cause: str) -> None:
        tries = self._tries[build.id] = self._tries.get(build.id, 0) + 1
        waited = time.time() - max(target.ended for target in build.targets)
        text = f"the artifacts cannot be given their names in the registry: {cause}"
        log.warning("naming artifacts failed", build=build.id, tries=tries, error=cause)
        if waited >= self._retry_seconds:
            await self._end(build, None, "NotJoined", f"{text}; given up, the artifacts themselves are there by digest")
            return
        if tries == 1:
            self._logs.append(build.id, "", "system", f"{text}; tried again by itself")
            self._logs.close(build.id)
        delay = min(RETRY_LONGEST, RETRY_FIRST * 2 ** min(tries - 1, 10))
        later = time.time() + delay
        await self._store.insist(lambda tx: tx.builds.change(replace(existing(tx, build.id), join_next=later)))

    async def _end(self, build: Build, index: BuiltArtifact | None, reason: str, text: str) -> None:
        self._tries.pop(build.id, None)
        self._logs.append(build.id, "", "system", text)
        await self._store.insist(lambda tx: _store_end(tx, build.id, index, reason, text))


def tags_of(build: Build) -> tuple[str, ...]:
    """Under which tags the images are put, and with its key behind each bundle: the build's id, and those of the spec
    where all of it succeeded, so that none of them ever comes to name less than it did before."""
    ends = {target.state for target in build.targets}
    return tuple(dict.fromkeys((build.id, *(build.tags if ends == {BuildState.SUCCEEDED} else ()))))


def annotations_of(build: Build) -> dict[str, str]:
    """What the index says of itself; the same for the same request. Blocks for as long as reading the spec takes."""
    return {
        **_origin(build),
        "org.opencontainers.image.title": build.name,
        "dev.longshore.user": build.user_id,
        "dev.longshore.project": build.project_id,
        "dev.longshore.name": build.name,
    }


def _origin(build: Build) -> dict[str, str]:
    try:
        spec = load_spec(build.spec)
    except InvalidSpec:
        # It was accepted by an earlier version; its images have been built.
        return {}
    return origin(spec.build, spec.deploy, build.files)


def _said(build: Build, index: BuiltArtifact | None) -> str:
    """What the log says of a build whose artifacts have their names."""
    tags, images = tags_of(build), made(build, ArtifactKind.IMAGE)
    said = [f"joined as {index.repository}@{index.digest}, named {', '.join(tags)}"] if index is not None else []
    said += [f"the image is named {', '.join(tags)}"] if images and index is None else []
    said += [
        f"the bundle is named {', '.join(bundle_tag(tag, target.key) for tag in tags)}"
        for target in made(build, ArtifactKind.BUNDLE)
    ]
    return "; ".join(said)


def _note_tag(tx: Transaction, repository: str, tag: str, digest: str) -> None:
    tx.tags.move(repository, tag, digest)


def _store_end(tx: Transaction, build_id: str, index: BuiltArtifact | None, reason: str, text: str) -> None:
    build = replace(existing(tx, build_id), image_index=index, join_next=0.0)
    tx.builds.change(build)
    tx.events.append(build_event(build, build.state, reason, text))
    settle(tx, build)


def _artifact(target: BuildTarget) -> BuiltArtifact:
    assert target.artifact is not None, "only images that were made are joined"
    return target.artifact
