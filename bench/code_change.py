"""What a one-line change of code moves: bytes on the wire at the push and at the pull of an image with large packages.

docs/measurements.md says what is compared and how the aim of 1.05 is read. In short: `ratio` is all bytes that pass
the link to the registry, in both directions, TLS and questions about layers included, divided by the compressed layer
of the code; `ratio_to_new_content` divides by all that differs from the artifact before. The packages are generated
wheels of noise, served by an index on this machine; the device is a Podman storage that has the image before.
"""

import asyncio
import hashlib
import json
import os
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.builds.builder import ImageBuilder
from controller.builds.bundles import BundleBuilder
from controller.builds.credentials import RegistryFiles
from controller.builds.model import ArtifactKind, BuildResult, ContextFile, RegistryAccess, TargetJob
from controller.builds.podman import Podman
from controller.builds.recovery import close
from controller.builds.registry import get_manifest
from controller.builds.settings import BuilderSettings
from controller.builds.uploads import UploadStore
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec
from tests.support.building import BASE_CACHE, one_chunk
from tests.support.counting_proxy import CountingProxy, counting_proxy
from tests.support.registry import running_registry
from tests.support.wheel_index import running_wheel_index, wheel

WHEELS, WHEEL_BYTES = 6, 90 * 10**6
# An application of this many source files, of about this size each.
MODULES, MODULE_BYTES = 150, 20_000
CHANGE = b"\nchanged = True\n"
NAMES = [f"heavy-{number}" for number in range(WHEELS)]


@dataclass(frozen=True)
class Parts:
    """What an artifact consists of: sizes of layers by digest, and of what describes it, configuration and manifest."""

    layers: dict[str, int]
    described: int


@dataclass
class Bench:
    folder: Path
    access: RegistryAccess
    link: CountingProxy
    uploads: UploadStore
    images: ImageBuilder
    bundles: BundleBuilder
    device: Podman

    async def file(self, path: str, content: bytes) -> ContextFile:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        await self.uploads.write(digest, len(content), 0, one_chunk(content))
        return ContextFile(path, digest, len(content))

    def job(self, build_id: str, files: tuple[ContextFile, ...]) -> TargetJob:
        spec = {"packages": {"pypi": [f"{name}==1.0" for name in NAMES]}}
        return TargetJob(
            build_id=build_id, user_id="bench", project_id="bench", name="heavy", profile="x86-cpu", files=files,
            spec=BuildSpec.model_validate(spec), repository=f"{self.access.address}/bench/heavy",
            deploy=DeploySpec(entrypoint=["python3", "app/m0.py"]), target="x86-cpu",
        )  # fmt: skip

    async def pull(self, result: BuildResult) -> None:
        assert result.artifact is not None
        options = await RegistryFiles(self.folder, self.access).options()
        name = f"{result.artifact.repository}@{result.artifact.digest}"
        pulled = await self.device.run("pull", "-q", *options, name)
        if pulled.returncode != 0:
            raise RuntimeError(pulled.stderr)

    async def parts(self, result: BuildResult) -> "Parts":
        assert result.artifact is not None
        manifest = await get_manifest(result.artifact.repository, result.artifact.digest, self.access)
        assert manifest is not None
        document: dict[str, Any] = json.loads(manifest.body)
        layers = {layer["digest"]: int(layer["size"]) for layer in document["layers"]}
        return Parts(layers, int(document["config"]["size"]) + len(manifest.body))


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    async with (
        running_registry(folder / "registry") as registry,
        counting_proxy(registry.address) as link,
        running_wheel_index(folder / "index", dict(wheel(name, "1.0", noise=WHEEL_BYTES) for name in NAMES)) as index,
    ):
        os.environ.update({"UV_DEFAULT_INDEX": index.url, "no_proxy": "127.0.0.1"})
        access = RegistryAccess(link.address, registry.ca_file, registry.push_credentials)
        uploads = UploadStore(folder / "uploads", min_free_bytes=0)
        settings = BuilderSettings(base_cache=BASE_CACHE, ca_bundle=index.ca_file)
        images = ImageBuilder(folder / "builder", uploads, access, settings)
        bundles = BundleBuilder(folder / "bundles", uploads, access, settings)
        device = Podman(folder / "device")
        device.prepare()
        await images.recover()
        try:
            yield Bench(folder, access, link, uploads, images, bundles, device)
        finally:
            await images.close()
            close(device)


def application(seed: int) -> dict[str, bytes]:
    """Source files that compress as source files do."""
    words = random.Random(seed).choices([f"name_{number}" for number in range(2000)], k=MODULES * MODULE_BYTES // 9)
    per_file = len(words) // MODULES
    lines = [" = ".join(words[at : at + 4]) for at in range(0, len(words), 4)]
    return {
        f"app/m{number}.py": "\n".join(lines[number * per_file // 4 : (number + 1) * per_file // 4]).encode()
        for number in range(MODULES)
    }


async def compare(bench: Bench) -> str:
    code = application(1)
    before = tuple([await bench.file(path, content) for path, content in code.items()])
    changed = await bench.file("app/m0.py", code["app/m0.py"] + CHANGE)
    after = tuple(changed if file.path == changed.path else file for file in before)
    image = await one_kind(bench, bench.images, bench.job("before", before), bench.job("after", after))
    bundle_jobs = [
        replace(bench.job(name, files), kind=ArtifactKind.BUNDLE, target="x86-cpu.bundle")
        for name, files in (("bundle-before", before), ("bundle-after", after))
    ]
    bundle = await one_kind(bench, bench.bundles, *bundle_jobs)
    file_bytes = len(code["app/m0.py"])
    return (
        f"code_change: ratio={image.ratio:.3f} of=compressed_code_layer push_ratio={image.push_ratio:.3f} "
        f"pull_ratio={image.pull_ratio:.3f} pushed_bytes={image.pushed} pulled_bytes={image.pulled} "
        f"code_layer_bytes={image.layer} config_and_manifest_bytes={image.described} "
        f"ratio_to_new_content={image.ratio_to_new_content:.3f} "
        f"changed_file_bytes={file_bytes} ratio_to_changed_file={(image.pushed + image.pulled) / (2 * file_bytes):.1f} "
        f"changed_line_bytes={len(CHANGE)} bundle_push_ratio={bundle.push_ratio:.3f} "
        f"bundle_pushed_bytes={bundle.pushed} bundle_code_layer_bytes={bundle.layer} "
        f"source_files={len(code)} source_bytes={sum(map(len, code.values()))} "
        f"packages_MB={WHEELS * WHEEL_BYTES // 10**6}"
    )


@dataclass(frozen=True)
class Moved:
    """Bytes: on the wire, of the layer of the code, of configuration and manifest."""

    pushed: int
    pulled: int
    layer: int
    described: int

    @property
    def ratio(self) -> float:
        """Of both ways together."""
        return (self.pushed + self.pulled) / (2 * self.layer)

    @property
    def push_ratio(self) -> float:
        return self.pushed / self.layer

    @property
    def pull_ratio(self) -> float:
        return self.pulled / self.layer

    @property
    def ratio_to_new_content(self) -> float:
        """To all that differs from the artifact before; the bill of its packages does not."""
        return (self.pushed + self.pulled) / (2 * (self.layer + self.described))


async def one_kind(bench: Bench, builder: ImageBuilder | BundleBuilder, before: TargetJob, after: TargetJob) -> Moved:
    is_image = before.kind is ArtifactKind.IMAGE
    first = await builder.build(before, lambda *_: None, lambda _: None)
    if is_image:
        await bench.pull(first)
    known = (await bench.parts(first)).layers
    print(f"code_change: {before.kind} with layers of {sum(known.values())} bytes is there", flush=True)
    bench.link.reset()
    second = await builder.build(after, lambda *_: None, lambda _: None)
    pushed = bench.link.sent + bench.link.received
    now = await bench.parts(second)
    bench.link.reset()
    if is_image:
        await bench.pull(second)
    pulled = bench.link.sent + bench.link.received
    fresh = [size for digest, size in now.layers.items() if digest not in known]
    if len(fresh) != 1:
        raise RuntimeError(f"{len(fresh)} layers differ; only that of the code should")
    return Moved(pushed, pulled, fresh[0], now.described)


async def measure() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        async with open_bench(Path(folder)) as bench:
            return await compare(bench)


def main() -> str:
    """Prints a line for each kind; returns the last line."""
    return asyncio.run(measure())
