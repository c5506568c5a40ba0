"""A builder with its own Podman storage, uploads and registry access, as the controller would make it."""

import hashlib
import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.builds.builder import ImageBuilder
from controller.builds.model import BuildFailed, BuildState, BuiltArtifact, ContextFile, RegistryAccess, TargetJob
from controller.builds.podman import Podman
from controller.builds.settings import BuilderSettings
from controller.builds.uploads import UploadStore
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec
from tests.support.registry import RegistryUnderTest, running_registry

# Bootstrapped bases outlive a run of the tests: making one takes half a minute.
BASE_CACHE = Path(__file__).parents[2] / ".tools" / "bases"
# A base without Python is quicker to import and to push.
SMALL_BASE = "debian:bookworm-slim"


async def one_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass
class Workshop:
    """A builder and what goes with it. `lines` has (stream, text) of all builds, `states` their states."""

    folder: Path
    registry: RegistryUnderTest
    uploads: UploadStore
    builder: ImageBuilder
    lines: list[tuple[str, str]] = field(default_factory=list)
    states: list[BuildState] = field(default_factory=list)

    async def upload(self, path: str, content: bytes, executable: bool = False) -> ContextFile:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        await self.uploads.write(digest, len(content), 0, one_chunk(content))
        return ContextFile(path, digest, len(content), executable)

    async def build(self, job: TargetJob) -> BuiltArtifact:
        try:
            result = await self.builder.build(job, lambda *line: self.lines.append(line), self.states.append)
            assert result.artifact is not None
            return result.artifact
        except BuildFailed as failed:
            failed.add_note("\n".join(failed.last_lines))
            raise

    def job(
        self,
        build_id: str,
        spec: Mapping[str, Any],
        files: Sequence[ContextFile] = (),
        entrypoint: Sequence[str] = (),
        ports: Sequence[int] = (),
        **more: Any,
    ) -> TargetJob:
        network = {"ports": [{"name": f"port-{port}", "container": port} for port in ports]}
        job = TargetJob(
            build_id=build_id, user_id="alice", project_id="vision", name="digits", profile="x86-cpu",
            spec=BuildSpec.model_validate(spec), files=tuple(files),
            deploy=DeploySpec.model_validate({"entrypoint": list(entrypoint), "network": network}),
            repository=f"{self.registry.address}/alice/digits",
        )  # fmt: skip
        return replace(job, **more)

    def podman(self, *args: str) -> str:
        """Output of a command on the builder's storage."""
        argv = self.builder.podman.argv(args)
        environment = self.builder.podman.environment()
        return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout

    def podman_json(self, *args: str) -> Any:
        return json.loads(self.podman(*args))

    def images(self) -> set[str]:
        """Ids of all images, those of steps included."""
        return images_of(self.builder.podman)

    def containers(self) -> list[str]:
        return containers_of(self.builder.podman)

    def output(self) -> list[str]:
        return [text for _, text in self.lines]

    def leftovers(self) -> list[str]:
        """What is of no use once no build runs; images and the registry are not looked at."""
        return leftovers_of(self.builder.podman)


def leftovers_of(podman: Podman) -> list[str]:
    """Containers, volumes, files, mounts and processes that are of no use once no build runs on this storage."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(podman.temporary) in line]
    merged = [line for line in mounts_below(podman.storage) if line.endswith("/merged")]
    files = [*podman.temporary.iterdir(), *_run_states(podman)]
    found = [*containers_of(podman), *volumes_of(podman), *mounts, *merged, *files, *processes_of(podman.folder)]
    return [str(each) for each in found]


def containers_of(podman: Podman) -> list[str]:
    """Ids of all containers, those of build steps included."""
    return _listed(podman, "ps", "-a", "--external", "-q")


def volumes_of(podman: Podman) -> list[str]:
    """Names of all volumes: no build makes one that it needs afterwards."""
    return _listed(podman, "volume", "ls", "-q")


def images_of(podman: Podman) -> set[str]:
    """Ids of all images, those of steps included."""
    return set(_listed(podman, "images", "-a", "-q", "--no-trunc"))


def _listed(podman: Podman, *args: str) -> list[str]:
    done = subprocess.run(podman.argv(args), env=podman.environment(), check=True, capture_output=True, text=True)
    return done.stdout.split()


def _run_states(podman: Podman) -> list[Path]:
    """What the runtime notes of steps whose bundles lay in the builder's folder."""
    states = Path("/run/runc").glob("buildah-*/state.json")
    return [state.parent for state in states if f"{podman.temporary}/" in _text(state)]


def _text(path: Path) -> str:
    """Nothing where it has gone: steps of other builders come and go."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def mounts_below(folder: Path) -> list[str]:
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [mount for mount in mounts if mount.startswith(f"{folder}/")]


def processes_of(folder: Path) -> list[int]:
    """Processes that a builder of this folder started, and those inside its containers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                marked = f"LONGSHORE_BUILDER={folder}".encode() in (entry / "environ").read_bytes().split(b"\0")
                root = (entry / "mountinfo").read_text().partition("\n")[0]
            except OSError:
                continue
            if marked or f"{folder}/storage/" in root:
                found.append(int(entry.name))
    return found


def builder_in(folder: Path, registry: RegistryAccess, uploads: UploadStore, **settings: Any) -> ImageBuilder:
    return ImageBuilder(folder, uploads, registry, BuilderSettings(base_cache=BASE_CACHE, **settings))


@asynccontextmanager
async def open_workshop(folder: Path, registry_host: str = "127.0.0.1") -> AsyncIterator[Workshop]:
    """A workshop with a real registry; nothing of it runs or is mounted afterwards."""
    async with running_registry(folder / "registry", registry_host) as registry:
        access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
        uploads = UploadStore(folder / "uploads", min_free_bytes=0)
        builder = builder_in(folder / "builder", access, uploads)
        await builder.recover()
        try:
            yield Workshop(folder, registry, uploads, builder)
        finally:
            await builder.close()
            assert mounts_below(folder) == []
