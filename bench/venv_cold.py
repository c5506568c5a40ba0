"""Installing a bundle on a device that has nothing of it: ours, against uv alone, and against venv and pip, of the same
wheels, Python and disk.

Ours begins with the name of a bundle and ends with a release that can be started: manifest and wheels fetched from a
real registry over TLS, each checked and brought to the disk, environment made, files unpacked. The others find the
wheels on the disk already, but for `uv_fetching`: uv with an index over TLS on this machine.

Cold: nothing is installed, nothing was fetched, uv has no cache, pip has none; what the kernel remembers of files is
left alone. What ours does later in the background (compiling, sync) is outside of it, and over before the next one
begins. Interleaved rounds, each in another order; medians.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from baremetal_agent.virtualenv.environments import uv_program
from baremetal_agent.virtualenv.folders import boot_id
from baremetal_agent.virtualenv.installer import Installer
from baremetal_agent.virtualenv.interpreters import find_python
from baremetal_agent.virtualenv.packages import Packages
from edge_agent.runtime.backend import Progress
from edge_agent.runtime.model import Artifact, ArtifactKind
from tests.support.bundling import BundleShop, open_bundle_shop

ROUNDS = 7
# What a service that answers by HTTP from a model has.
WISHES = ("onnxruntime", "numpy", "flask")
REPOSITORY = "alice/vision/digits"
VERSION = "3.11"


@dataclass(frozen=True)
class Comparison:
    """The same wheels in a registry, as a bundle, and in a folder; each round has a folder of its own. `fetches` are
    seconds of ours until all was on the device."""

    shop: BundleShop
    artifact: Artifact
    wheels: Path
    python: Path
    fetches: list[float] = field(default_factory=list)

    async def ours(self, folder: Path) -> float:
        installer = Installer(folder, self._credentials, self.shop.registry.ca_file, Packages(False), boot_id())
        began, fetched = time.perf_counter(), 0.0

        def note(seen: Progress) -> None:
            nonlocal fetched
            fetched = time.perf_counter() if seen.fetched_bytes == seen.total_bytes else fetched

        try:
            await installer.prepare(self.artifact, note)
            seconds = time.perf_counter() - began
            release = installer.find(self.artifact)
            assert release is not None
            await _import(release.environment)
            await installer.settled()
        finally:
            await installer.close()
        self.fetches.append(fetched - began)
        return seconds

    async def uv(self, folder: Path) -> float:
        uv, made = str(uv_program()), folder / "environment"
        install = ["pip", "install", "--python", f"{made}/bin/python", "--offline", "--no-index"]
        return await _timed(
            made,
            [uv, "--quiet", "venv", "--python", str(self.python), str(made)],
            [uv, "--quiet", *install, "--find-links", str(self.wheels), *WISHES],
            UV_CACHE_DIR=str(folder / "cache"),
        )

    async def uv_fetching(self, folder: Path) -> float:
        uv, made = str(uv_program()), folder / "environment"
        install = ["pip", "install", "--python", f"{made}/bin/python", "--default-index", self.shop.index.url]
        return await _timed(
            made,
            [uv, "--quiet", "venv", "--python", str(self.python), str(made)],
            [uv, "--quiet", *install, *WISHES],
            UV_CACHE_DIR=str(folder / "cache"),
            SSL_CERT_FILE=str(self.shop.index.ca_file),
        )

    async def pip(self, folder: Path) -> float:
        made = folder / "environment"
        install = ["install", "--quiet", "--no-index", "--no-cache-dir", "--disable-pip-version-check"]
        return await _timed(
            made,
            [str(self.python), "-m", "venv", str(made)],
            [f"{made}/bin/python", "-m", "pip", *install, "--find-links", str(self.wheels), *WISHES],
        )

    async def _credentials(self) -> tuple[str, str]:
        return self.shop.registry.device_credentials("bench")


def main() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> str:
    async with _comparison(folder) as comparison:
        kinds = {
            "ours": comparison.ours,
            "uv": comparison.uv,
            "uv_fetching": comparison.uv_fetching,
            "pip": comparison.pip,
        }
        found: dict[str, list[float]] = {name: [] for name in kinds}
        order = list(kinds)
        for number in range(ROUNDS):
            for name in order:
                found[name].append(await _once(kinds[name], folder / "round"))
            print(
                f"round {number}: {', '.join(f'{name} {found[name][-1] * 1000:.0f} ms' for name in kinds)}", flush=True
            )
            order = [*order[1:], order[0]]
        size = sum(path.stat().st_size for path in comparison.wheels.iterdir())
    ours, uv, uv_fetching, pip = (statistics.median(found[name]) * 1000 for name in kinds)
    fetched = statistics.median(comparison.fetches) * 1000
    return (
        f"venv_cold: ratio={_ratio(found['ours'], found['uv']):.3f} "
        f"ratio_to_uv_fetching={_ratio(found['ours'], found['uv_fetching']):.3f} "
        f"faster_than_pip={_ratio(found['pip'], found['ours']):.1f} ours_ms={ours:.0f} "
        f"fetched_ms={fetched:.0f} uv_ms={uv:.0f} uv_fetching_ms={uv_fetching:.0f} "
        f"pip_ms={pip:.0f} wheels_mb={size / 1e6:.1f} rounds={ROUNDS} "
        "(medians; ours fetches, uv and venv with pip have the wheels already)"
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of each round's own."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


async def _once(install: Callable[[Path], Awaitable[float]], folder: Path) -> float:
    folder.mkdir()
    try:
        return await install(folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)


@asynccontextmanager
async def _comparison(folder: Path) -> AsyncIterator[Comparison]:
    wheels = folder / "wheels"
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", VERSION]
    await asyncio.to_thread(subprocess.run, [*argv, "--dest", str(wheels), *WISHES], check=True)
    files = {path.name: path.read_bytes() for path in wheels.iterdir()}
    async with open_bundle_shop(folder / "shop", files) as shop:
        shop.registry.pullable.add(REPOSITORY)
        main = await shop.upload("main.py", b"import onnxruntime\n")
        result = await shop.build(shop.job("b-cold", {"packages": {"pypi": list(WISHES)}}, [main]))
        assert result.artifact is not None, result
        artifact = Artifact(result.artifact.repository, result.artifact.digest, "linux/amd64", ArtifactKind.BUNDLE)
        yield Comparison(shop, artifact, wheels, await find_python("the bundle", VERSION))


async def _timed(environment: Path, *commands: Sequence[str], **variables: str) -> float:
    """Seconds of these commands one after the other, without settings of whoever runs this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    began = time.perf_counter()
    for argv in commands:
        process = await asyncio.create_subprocess_exec(*argv, env={**kept, **variables})
        if await process.wait() != 0:
            raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}")
    seconds = time.perf_counter() - began
    await _import(environment)
    return seconds


async def _import(environment: Path) -> None:
    """All of it is there."""
    process = await asyncio.create_subprocess_exec(f"{environment}/bin/python", "-c", f"import {', '.join(WISHES)}")
    if await process.wait() != 0:
        raise RuntimeError(f"{environment} lacks what it was to have")
