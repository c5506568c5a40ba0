"""What housekeeping keeps in order, without a controller: folders, rows and a real registry."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import Build, BuildState, BuiltArtifact, ContextFile, RegistryAccess
from controller.builds.podman import Podman
from controller.builds.referrers import attach_document
from controller.builds.registry import has_manifest
from controller.builds.uploads import UploadStore
from controller.housekeeping.estate import Builders, Estate, NoBuilders
from controller.housekeeping.journal import Journal
from controller.housekeeping.keeper import Housekeeper
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import DAY, Policy
from controller.housekeeping.space import Space
from controller.store import Store, Transaction, open_store
from tests.support.registry import RegistryUnderTest, running_registry
from tests.support.rows import build, deployment
from tests.support.tiny_images import Registry, push_tiny

POLICY = Policy(builds_days=30, builds_keep_last=0, uploads_days=0, logs_days=90)
LONG_AGO = time.time() - 80 * DAY


@dataclass
class House:
    """A controller's folders, rows and registry, without a controller."""

    folder: Path
    registry: RegistryUnderTest
    store: Store
    uploads: UploadStore
    logs: BuildLogs
    materials: MaterialsStore
    policy: Policy = POLICY
    space: Space = field(default_factory=lambda: Space({}, 0))
    builders: Builders = field(default_factory=NoBuilders)

    @property
    def access(self) -> RegistryAccess:
        return RegistryAccess(self.registry.address, self.registry.ca_file, self.registry.push_credentials)

    def keeper(self, access: RegistryAccess | None = None) -> Housekeeper:
        layers = LayerCache(Podman(self.folder / "builder"), lambda: self.builders.busy)
        estate = Estate(
            self.store, self.uploads, self.logs, self.materials, layers, access or self.access,
            Journal(self.folder / "journal.json"), self.folder / "registry", self.registry.registry.collect_garbage,
        )  # fmt: skip
        return Housekeeper(replace(estate, builders=self.builders, space=self.space), self.policy, 3600)

    async def push(self, name: str, place: str = "", size: int = 200_000) -> BuiltArtifact:
        """An image of 200 kB, or another size, with a document."""
        pusher = Registry(self.registry.address, self.registry.push_credentials(), self.registry.ca_file)
        repository = f"alice/digits/{place or name}"
        made = await asyncio.to_thread(push_tiny, pusher, repository, label=name, extra_bytes=size)
        await attach_document(made.repository, made.digest, b'{"bom": "%s"}' % name.encode(), "text/x", self.access)
        return BuiltArtifact(made.repository, made.digest, "linux/amd64", size)

    async def build(
        self,
        number: int,
        artifact: BuiltArtifact,
        ended: float = LONG_AGO,
        files: Sequence[ContextFile] = (),
        cached_from: str = "",
    ) -> Build:
        """A build that has succeeded, with log and bill of materials."""
        made = build(BuildState.SUCCEEDED)
        target = replace(made.targets[0], artifact=artifact, ended=ended, started=ended, cached_from=cached_from)
        made = replace(made, id=f"b-{number}", targets=(target,), created=ended, files=tuple(files))
        await self.store.transact(lambda tx: tx.builds.add(made, ""))
        self.logs.append(made.id, target.key, "stdout", "built")
        await self.logs.finish(made.id)
        self.materials.save(made.id, target.key, b"{}")
        return made

    async def upload(self, content: bytes) -> ContextFile:
        with self.uploads.intake() as intake:
            digest, size = intake.add(io.BytesIO(content).read)
            intake.commit()
        return ContextFile("file", digest, size)

    async def has(self, artifact: BuiltArtifact) -> bool:
        return await has_manifest(artifact.repository, artifact.digest, self.access)

    async def known(self) -> set[str]:
        rows = await self.store.transact(lambda tx: tx.keeping.builds())
        return {row.id for row in rows}

    def registry_bytes(self) -> int:
        data = self.folder / "registry" / "registry" / "data"
        return sum(path.stat().st_size for path in data.rglob("*") if path.is_file())

    async def deploy(self, made: Build, revision: int = 1) -> None:
        """A deployment whose revision of this number is this build's."""
        row = replace(deployment(revision=revision), build_id=made.id)

        def put(tx: Transaction) -> None:
            if revision == 1:
                tx.deployments.add(row)
            else:
                tx.deployments.change(row)
            tx.deployments.add_revision(row, "")

        await self.store.transact(put)


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    store = open_store(folder / "controller.db")
    try:
        async with running_registry(folder / "registry") as registry:
            yield House(
                folder, registry, store, UploadStore(folder / "uploads", 0), BuildLogs(folder / "logs"),
                MaterialsStore(folder / "materials"),
            )  # fmt: skip
    finally:
        store.close()
