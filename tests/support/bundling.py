"""A builder of bundles with its uploads, a real registry and a package index of its own."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from controller.builds.bundles import BundleBuilder
from controller.builds.model import ArtifactKind, BuildResult, BuildState, ContextFile, RegistryAccess, TargetJob
from controller.builds.registry import read_manifest
from controller.builds.registry_session import RegistrySession
from controller.builds.settings import BuilderSettings
from controller.builds.uploads import UploadStore
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec
from tests.support.building import one_chunk
from tests.support.registry import RegistryUnderTest, running_registry
from tests.support.wheel_index import WheelIndex, running_wheel_index


@dataclass
class BundleShop:
    folder: Path
    registry: RegistryUnderTest
    access: RegistryAccess
    uploads: UploadStore
    index: WheelIndex
    builder: BundleBuilder
    lines: list[str] = field(default_factory=list)
    states: list[BuildState] = field(default_factory=list)

    def another(self, name: str, access: RegistryAccess | None = None) -> BundleBuilder:
        """A builder as on another machine, which has none of this one's wheels."""
        settings = BuilderSettings(ca_bundle=self.index.ca_file)
        return BundleBuilder(self.folder / name, self.uploads, access or self.access, settings)

    async def build(self, job: TargetJob, builder: BundleBuilder | None = None) -> BuildResult:
        self.lines.clear()
        self.states.clear()
        made = builder or self.builder
        return await made.build(job, lambda _, text: self.lines.append(text), self.states.append)

    async def upload(self, path: str, content: bytes) -> ContextFile:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        await self.uploads.write(digest, len(content), 0, one_chunk(content))
        return ContextFile(path, digest, len(content))

    def job(self, build_id: str, spec: Mapping[str, Any], files: Sequence[ContextFile] = (), **more: Any) -> TargetJob:
        job = TargetJob(
            build_id=build_id, user_id="alice", project_id="vision", name="digits", profile="x86-cpu",
            spec=BuildSpec.model_validate(spec), files=tuple(files), kind=ArtifactKind.BUNDLE, target="x86-cpu.bundle",
            repository=f"{self.access.address}/alice/vision/digits",
            deploy=DeploySpec(entrypoint=["python", "main.py"]),
        )  # fmt: skip
        return replace(job, **more)

    async def manifest(self, result: BuildResult) -> dict[str, Any]:
        assert result.artifact is not None
        found = await read_manifest(result.artifact.repository, result.artifact.digest, self.access)
        return dict(json.loads(found.body))

    async def blob(self, repository: str, digest: str) -> bytes:
        async with (
            RegistrySession(repository, self.access) as session,
            session.request("GET", f"blobs/{digest}") as answer,
        ):
            assert answer.status == 200
            return await answer.read()

    def leftovers(self) -> list[Path]:
        """Files that are of no use once nothing is built."""
        unfinished = [path for path in self.folder.glob("*/wheels/*/*") if "." in path.name]
        return [*self.folder.glob("*/tmp/*"), *unfinished]


@asynccontextmanager
async def open_bundle_shop(
    folder: Path, wheels: Mapping[str, bytes], private: bool = False, host: str = "127.0.0.1"
) -> AsyncIterator[BundleShop]:
    """`host` is the address of this machine at which the registry and the index answer."""
    async with (
        running_registry(folder / "registry", host) as registry,
        running_wheel_index(folder / "index", wheels, private, host) as index,
    ):
        access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
        uploads = UploadStore(folder / "uploads", min_free_bytes=0)
        settings = BuilderSettings(ca_bundle=index.ca_file)
        builder = BundleBuilder(folder / "builder", uploads, access, settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("UV_DEFAULT_INDEX", index.url)
            for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX_URL"):
                patch.delenv(name, raising=False)
            # A proxy of this machine is not for servers on it.
            patch.setenv("no_proxy", f"127.0.0.1,{host}")
            yield BundleShop(folder, registry, access, uploads, index, builder)
