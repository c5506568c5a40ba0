"""What users do with project volumes: push versions, read, forget."""

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.access import new_id
from controller.builds.blobs import Blob, push_blob
from controller.builds.cancelling import in_thread
from controller.builds.jobs import volume_path
from controller.builds.listing import check_tree
from controller.builds.model import ContextFile, RegistryAccess
from controller.builds.partials import telling_of_a_full_disk
from controller.builds.pushed import OnPushed
from controller.builds.registry import MANIFEST_TYPE, digest_of, send_manifest
from controller.builds.registry_session import RegistrySession, RegistryUnreachable
from controller.builds.uploads import UploadStore
from controller.errors import FailedPrecondition, InvalidRequest, NotFound, Unavailable
from controller.events.model import Project
from controller.spec.fields import NAME
from controller.store import Store, Transaction
from controller.store.rows import Page
from controller.volumes.gate import PushGate
from controller.volumes.model import LATEST, VolumeVersion
from controller.volumes.packing import Packed, Stored, pack_volume
from longshore.errors import Reason

MOST_FILES = 10_000
# Registries and agents take no larger one.
LARGEST_MANIFEST = 4 * 2**20


@dataclass(frozen=True)
class Push:
    """`uploader`: whose uploads it may consist of, as `UploadStore` takes it."""

    project: Project
    name: str
    files: tuple[ContextFile, ...]
    uploader: str = ""


class VolumeService:
    """`folder` is for what is packed; it is emptied at the start. `on_pushed` is told before anything is pushed."""

    def __init__(
        self,
        store: Store,
        uploads: UploadStore,
        access: RegistryAccess,
        folder: Path,
        gate: PushGate,
        on_pushed: OnPushed,
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._access = access
        self._folder = folder
        self._gate = gate
        self._on_pushed = on_pushed
        shutil.rmtree(folder, ignore_errors=True)

    async def push(self, push: Push) -> tuple[VolumeVersion, int]:
        """The version, which is the latest now, and how many bytes the registry lacked. Errors: InvalidRequest,
        FailedPrecondition MISSING_UPLOADS, Unavailable, ResourceExhausted."""
        _check(push)
        files = await asyncio.to_thread(self._stored, push)
        repository = f"{self._access.address}/{volume_path(push.project.user_id, push.project.project_id, push.name)}"
        async with self._gate.push():
            digest, sent = await self._send(push, repository, files)
            size = sum(each.file.size_bytes for each in files)
            version = VolumeVersion(
                new_id("vol"), push.project, push.name, digest, repository, size, len(files), time.time()
            )
            return await self._store.transact(lambda tx: tx.volumes.put(version)), sent

    async def page(
        self, project: Project | None, user_id: str, name: str, page: Page
    ) -> tuple[list[VolumeVersion], str]:
        """Versions, newest push first, and the token of the next page."""
        return await self._store.transact(lambda tx: tx.volumes.page(project, user_id, name, page))

    async def get(self, project: Project, name: str, version: str) -> tuple[VolumeVersion, bool]:
        """The version, and whether something uses it. Raises NotFound."""

        def read(tx: Transaction) -> tuple[VolumeVersion, bool]:
            found = find_version(tx, project, name, version)
            return found, found.place in tx.keeping.used_volumes()

        return await self._store.transact(read)

    async def delete(self, project: Project, name: str, version: str) -> list[VolumeVersion]:
        """Forgets a version, or all of them for "". Raises NotFound, FailedPrecondition VOLUME_IN_USE."""
        named = await self._store.transact(lambda tx: _named(tx, project, name, version))
        # First: what is forgotten and noted nowhere would stay in the registry for ever.
        for each in named:
            await in_thread(self._on_pushed, project.user_id, project.project_id, each.repository, each.digest)
        return await self._store.transact(lambda tx: _delete(tx, project, name, version), frees=True)

    def _stored(self, push: Push) -> list[Stored]:
        """Blocks. Raises FailedPrecondition."""
        digests = {file.digest for file in push.files}
        missing = sorted(digest for digest in digests if not self._uploads.stat(digest, push.uploader).complete)
        if missing:
            message = f"{len(missing)} contents are not uploaded, the first is {missing[0]}; send them by WriteUpload"
            raise FailedPrecondition(Reason.MISSING_UPLOADS, message, missing=",".join(missing[:50]))
        return [self._located(file) for file in push.files]

    def _located(self, file: ContextFile) -> Stored:
        path = self._uploads.path(file.digest)
        return Stored(ContextFile(file.path, file.digest, path.stat().st_size, file.executable), path)

    async def _send(self, push: Push, repository: str, files: Sequence[Stored]) -> tuple[str, int]:
        with telling_of_a_full_disk():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                packed = await in_thread(pack_volume, files, folder)
                if len(packed.manifest) > LARGEST_MANIFEST:
                    raise InvalidRequest("files", "too many large files for one volume; join some of them")
                return await self._send_packed(push, repository, packed)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    async def _send_packed(self, push: Push, repository: str, packed: Packed) -> tuple[str, int]:
        digest, project = digest_of(packed.manifest), push.project
        await in_thread(self._on_pushed, project.user_id, project.project_id, repository, digest)
        by_digest: dict[str, Blob] = {blob.digest: blob for blob in packed.blobs}
        try:
            async with RegistrySession(repository, self._access, timeout=None, pushes=True) as session:
                sent = sum([await push_blob(session, blob) for blob in by_digest.values()])
                await send_manifest(session, digest, packed.manifest, MANIFEST_TYPE)
        except RegistryUnreachable as error:
            raise Unavailable(Reason.REGISTRY_UNREACHABLE, f"cannot push {repository}: {error}; push again") from error
        return digest, sent


def find_version(tx: Transaction, project: Project, name: str, version: str) -> VolumeVersion:
    """The version of this digest, or the one that was pushed last for "latest" and "". Raises NotFound."""
    digest = "" if version == LATEST else version
    found = tx.volumes.find(project, name, digest)
    if found is None:
        what = f"version {digest} of volume {name}" if digest else f"volume {name}"
        message = f"no {what} in project {project.user_id}/{project.project_id}; push it: longshore volume push {name}"
        raise NotFound(Reason.NO_SUCH_VOLUME, message)
    return found


def _named(tx: Transaction, project: Project, name: str, version: str) -> list[VolumeVersion]:
    """That version, or all of them for "". Raises NotFound."""
    one = find_version(tx, project, name, version)
    return [one] if version else tx.volumes.of(project, name)


def _delete(tx: Transaction, project: Project, name: str, version: str) -> list[VolumeVersion]:
    found = _named(tx, project, name, version)
    used = tx.keeping.used_volumes()
    if busy := next((each for each in found if each.place in used), None):
        message = f"{name}@{busy.digest} is used by a deployment, or a device may return to it; deploy another version"
        raise FailedPrecondition(Reason.VOLUME_IN_USE, message)
    tx.volumes.remove([each.id for each in found])
    return found


def _check(push: Push) -> None:
    if not re.fullmatch(NAME, push.name):
        raise InvalidRequest("name", "expected 1 to 63 lower-case letters, digits and '-'")
    if not push.files:
        raise InvalidRequest("files", "a volume has at least one file")
    if len(push.files) > MOST_FILES:
        raise InvalidRequest("files", f"a volume has at most {MOST_FILES} files; pack some of them together")
    check_tree([file.path for file in push.files])
