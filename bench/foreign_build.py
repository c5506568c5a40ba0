"""What an image for another architecture takes, against one for this machine's own: the digits example, from nothing.

Every build begins with an empty storage, an empty cache of bases and empty caches of packages; the two take turns in
going first.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import yaml

from controller.builds.builder import ImageBuilder
from controller.builds.emulation import own_architecture
from controller.builds.model import BuildFailed, ContextFile, RegistryAccess, TargetJob
from controller.builds.settings import BuilderSettings
from tests.support.building import Workshop, open_workshop

ROUNDS = 5
EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
PROFILES = {"amd64": "x86-cpu", "arm64": "arm64-cpu"}


async def measure() -> str:
    own = own_architecture()
    foreign = next(name for name in PROFILES if name != own)
    seconds: dict[str, list[float]] = {own: [], foreign: []}
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        async with open_workshop(Path(folder)) as workshop:
            spec, files = await _example(workshop)
            for number in range(ROUNDS):
                for name in (own, foreign) if number % 2 else (foreign, own):
                    job = workshop.job(f"{name}-{number}", spec, files, profile=PROFILES[name])
                    seconds[name].append(await _build(workshop, job))
                print(f"foreign_build: round {number + 1}: {_row(own, seconds)} {_row(foreign, seconds)}", flush=True)
    ours, theirs = statistics.median(seconds[foreign]), statistics.median(seconds[own])
    return (
        f"foreign_build: ratio={ours / theirs:.3f} {foreign}_s={ours:.2f} {own}_s={theirs:.2f} rounds={ROUNDS} "
        "caches=cold example=digits emulated=nothing"
    )


def _row(name: str, seconds: dict[str, list[float]]) -> str:
    return f"{name} {seconds[name][-1]:.2f} s"


async def _example(workshop: Workshop) -> tuple[dict[str, object], list[ContextFile]]:
    written = yaml.safe_load((EXAMPLE / "deployment.yml").read_text(encoding="utf-8"))["build"]
    names = written.pop("files")
    return written, [await workshop.upload(name, (EXAMPLE / name).read_bytes()) for name in names]


async def _build(workshop: Workshop, job: TargetJob) -> float:
    """Seconds from the request to the image in the registry, by a builder that has nothing yet."""
    registry = workshop.registry
    access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        builder = ImageBuilder(Path(folder) / "builder", workshop.uploads, access, BuilderSettings())
        await builder.recover()
        try:
            begin = time.perf_counter()
            result = await builder.build(job, lambda *_: None, lambda _: None)
            seconds = time.perf_counter() - begin
        except BuildFailed as failure:
            raise RuntimeError(f"{failure.reason}: {failure.message}\n{failure.last_lines}") from failure
        finally:
            await builder.close()
    if emulated := [note for note in result.notes if "emulated" in note]:
        raise RuntimeError(f"the example needs no emulation, and yet: {emulated}")
    return seconds


def main() -> str:
    """Prints a line for each round; returns the last line."""
    return asyncio.run(measure())
