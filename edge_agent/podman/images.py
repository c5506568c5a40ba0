"""Images on the device: fetched by digest, checked, and removed again when nothing needs them."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.podman import trust
from edge_agent.podman.connection import Connection
from edge_agent.podman.errors import ApiError, ImageUnreadable, pull_error
from edge_agent.podman.ledger import Entry, Ledger
from edge_agent.podman.registry import layer_sizes
from edge_agent.podman.storage.examine import Damage
from edge_agent.podman.storage.keeper import StorageKeeper
from edge_agent.runtime.backend import ArtifactDamaged, BackendError, Progress
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.model import Artifact, Workload
from edge_agent.runtime.platforms import check_platform, os_and_architecture

SAMPLE_SECONDS = 0.25
# More at a time would only share the same link, and each be slower.
FETCHES_AT_A_TIME = 3
Credentials = Callable[[], Awaitable[tuple[str, str]]]


@dataclass(frozen=True)
class ImageFacts:
    """The user that an image names ("" for root), and the names of the variables that it sets."""

    user: str
    variables: frozenset[str]


class Images:
    """The images of one agent. `copy_folder` is where Podman keeps layers on their way, for progress; `idle` gives the
    ids of the agent's containers that do not run."""

    def __init__(
        self,
        connection: Connection,
        credentials: Credentials,
        registry_ca: Path | None,
        certs_folder: Path,
        copy_folder: Path,
        ledger: Ledger,
        keeper: StorageKeeper,
        idle: Callable[[], Awaitable[frozenset[str]]],
    ) -> None:
        self._connection = connection
        self._credentials = credentials
        self._registry_ca = registry_ca
        self._certs_folder = certs_folder
        self._copy_folder = copy_folder
        self._ledger = ledger
        self._keeper = keeper
        self._idle = idle
        self._locks: dict[str, asyncio.Lock] = {}
        self._turns = asyncio.Semaphore(FETCHES_AT_A_TIME)
        self._facts: dict[str, ImageFacts] = {}
        # Digests of images of which an instance failed as one with damaged files does, and of those that were read.
        self._suspected: set[str] = set()
        self._read: set[str] = set()

    async def prepare(self, workload: Workload, progress: Callable[[Progress], None], store: Path) -> None:
        """What `DeployBackend.prepare` promises; `store` is where Podman keeps images."""
        artifact = workload.artifact
        check_platform(artifact.reference, *os_and_architecture(artifact.platform))
        async with self._locks.setdefault(artifact.digest, asyncio.Lock()):
            self._keeper.use(store)
            await self._replace(artifact, await self._look(artifact))
            image, fresh = await self._present(artifact, progress, store)
            check_platform(artifact.reference, str(image.get("Os", "")), str(image.get("Architecture", "")))
            found = await self._connection.in_lasting_thread(self._keeper.secure, artifact.digest, fresh)
            await self._replace(artifact, found)

    async def _present(
        self, artifact: Artifact, progress: Callable[[Progress], None], store: Path
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """The image, and those of its layers that had to be fetched."""
        image = await self._readable(artifact)
        if image is not None:
            return image, frozenset()
        await self._connection.in_thread(self._keeper.name_layers)
        before = await self._connection.in_thread(self._keeper.layers)
        async with self._turns:
            await self._fetch(artifact, progress, store)
        self._read.discard(artifact.digest)
        image = await self._inspect(artifact)
        if image is None:
            raise BackendError("ImagePullFailed", f"podman pulled {artifact.reference}, but lacks it", retryable=True)
        return image, await self._connection.in_thread(self._keeper.layers) - before

    async def _readable(self, artifact: Artifact) -> dict[str, Any] | None:
        """As `_inspect`. What Podman cannot read, for whatever cause, is damaged."""
        try:
            return await self._inspect(artifact)
        except ImageUnreadable as error:
            damage = await self._look(artifact, thorough=True)
            if damage is None:
                damage = await self._connection.in_thread(self._keeper.all_of, artifact.digest, error.message)
            await self._replace(artifact, damage)
            raise

    async def _look(self, artifact: Artifact, *, thorough: bool = False) -> Damage | None:
        return await self._connection.in_lasting_thread(self._keeper.look, artifact.digest, thorough=thorough)

    async def _replace(self, artifact: Artifact, damage: Damage | None) -> None:
        """Raises ArtifactDamaged where there is damage, so that it is told; what is damaged is gone then, if it can."""
        if damage is not None:
            idle = await self._idle()
            await self._connection.in_lasting_thread(self._keeper.take_out, damage, artifact.reference, idle)
            self._facts.pop(artifact.digest, None)
            message = (
                f"{artifact.reference} is damaged on this device ({damage.what}); what is damaged is fetched again"
            )
            raise ArtifactDamaged(message)

    def suspect(self, digest: str) -> None:
        """An instance of this image has failed as one with damaged files does: it is read before the next start."""
        self._suspected.add(digest)

    async def require_sound(self, artifact: Artifact, store: Path, *, doubted: bool = False) -> None:
        """Raises ArtifactDamaged where the image is damaged, and no longer there then. What is lacking is seen at its
        first start in the life of this agent; all of it is read, once, if it is suspected or `doubted`."""
        digest = artifact.digest
        thorough = (doubted or digest in self._suspected) and digest not in self._read
        if digest in self._facts and not thorough:
            return
        self._keeper.use(store)
        damage = await self._look(artifact, thorough=thorough)
        self._suspected.discard(digest)
        if thorough:
            self._read.add(digest)
        await self._replace(artifact, damage)

    async def facts(self, artifact: Artifact) -> ImageFacts:
        """Raises BackendError "NotPrepared" where the image is not on the device."""
        if artifact.digest not in self._facts:
            image = await self._readable(artifact)
            if image is None:
                raise BackendError("NotPrepared", f"{artifact.reference} is not on this device", retryable=False)
            config = image.get("Config") or {}
            variables = frozenset(entry.partition("=")[0] for entry in config.get("Env") or ())
            self._facts[artifact.digest] = ImageFacts(str(config.get("User") or ""), variables)
        return self._facts[artifact.digest]

    async def prune(self, keep: frozenset[str]) -> None:
        """What `DeployBackend.prune` promises. Podman refuses to remove what a container uses."""
        for digest, entry in self._ledger.entries().items():
            if digest not in keep and await self._remove(entry.reference):
                self._ledger.forget(digest)

    async def _remove(self, reference: str) -> bool:
        """Whether the image is gone."""
        try:
            answer = await self._connection.call("DELETE", f"images/{reference}")
        except ApiError as error:
            return error.status == 404
        return not (answer or {}).get("Errors")

    async def _inspect(self, artifact: Artifact) -> dict[str, Any] | None:
        try:
            image: dict[str, Any] = await self._connection.call("GET", f"images/{artifact.reference}/json")
        except ApiError as error:
            if error.status == 404:
                return None
            raise ImageUnreadable(f"{artifact.reference}: {error.message}") from error
        digests = [name.rpartition("@")[2] for name in image.get("RepoDigests") or ()]
        return image if artifact.digest in digests else None

    async def _fetch(self, artifact: Artifact, progress: Callable[[Progress], None], store: Path) -> None:
        user, password = await self._credentials()
        registry = artifact.repository.partition("/")[0]
        if self._registry_ca is not None:
            trust.trust(registry, self._registry_ca, self._certs_folder)
        self._ledger.record(artifact.digest, Entry(artifact.reference))
        reach("fetch.begun")
        layers = await self._connection.in_lasting_thread(layer_sizes, artifact, (user, password), self._registry_ca)
        self._check_room(artifact, layers, store)
        total = sum(layers.values())
        progress(Progress(0, total))
        sampling = asyncio.create_task(self._report(total, progress))
        try:
            await self._connection.in_lasting_thread(self._pull, artifact.reference, user, password)
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
        reach("fetch.arrived")
        self._ledger.record(artifact.digest, Entry(artifact.reference, layers))
        reach("fetch.unpacked")
        progress(Progress(total, total))

    def _check_room(self, artifact: Artifact, layers: Mapping[str, int], store: Path) -> None:
        """Refuses what cannot fit: each layer lies there as it came until it is unpacked, which does not shrink it."""
        need, free = 2 * self._ledger.missing(layers), shutil.disk_usage(store).free
        if need > free:
            raise BackendError(
                "DiskFull",
                f"cannot fetch {artifact.reference}: it needs at least {_mib(need)} below {store}, {_mib(free)} are "
                "free; free space on this device, or delete deployments from it",
                retryable=True,
            )

    def _pull(self, reference: str, user: str, password: str) -> None:
        """Every line of the answer is looked at: a failed pull answers with status 200."""
        credential = json.dumps({"username": user, "password": password}).encode()
        headers = {"X-Registry-Auth": base64.urlsafe_b64encode(credential).decode()} if user else {}
        params = {"reference": reference, "tlsVerify": "true"}
        try:
            with self._connection.stream("POST", "images/pull", params=params, headers=headers) as pieces:
                for line in b"".join(pieces).splitlines():
                    if error := json.loads(line).get("error"):
                        raise pull_error(reference, str(error))
        except ApiError as error:
            raise pull_error(reference, error.message) from error

    async def _report(self, total: int, progress: Callable[[Progress], None]) -> None:
        """Podman tells no bytes; they can be seen arriving in its scratch folder."""
        best = 0
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            size = await self._connection.in_thread(_folder_size, self._copy_folder)
            if size > best:
                best = size
                progress(Progress(min(best, total) if total else best, total))


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _folder_size(folder: Path) -> int:
    """Of what is there at this moment: files and folders may vanish while they are looked at."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(parent, name).lstat().st_size
    return size
