"""What it brings to build the targets of one request beside each other.

The same three targets, in one storage: one after the other, and all at once. Every round has a new working directory
in the images, so that no layer comes from a cache; the bases lie there. The two ways take turns in going first.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.builds.model import ContextFile, TargetJob
from tests.support.building import Workshop, open_workshop

ROUNDS = 5
TARGETS = ("x86-cpu", "arm64-cpu", "x86-cuda")
BASE = "python:3.11-slim-bookworm"
PACKAGES = ["numpy", "flask"]


async def one_after_the_other(workshop: Workshop, jobs: list[TargetJob]) -> None:
    for job in jobs:
        await workshop.build(job)


async def all_at_once(workshop: Workshop, jobs: list[TargetJob]) -> None:
    await asyncio.gather(*(workshop.build(job) for job in jobs))


WAYS: tuple[Callable[[Workshop, list[TargetJob]], Awaitable[None]], ...] = (one_after_the_other, all_at_once)


def main() -> str:
    """Runs the rounds; the line with the result."""
    return asyncio.run(_measure())


async def _measure() -> str:
    times: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="longshore-bench-", dir="/var/tmp") as folder:
        async with open_workshop(Path(folder)) as workshop:
            code = await workshop.upload("server.py", b"print('ready')\n")
            await one_after_the_other(workshop, _jobs(workshop, "first", code))
            for number in range(ROUNDS):
                for way in WAYS if number % 2 else reversed(WAYS):
                    jobs = _jobs(workshop, f"{way.__name__}-{number}", code)
                    begin = time.perf_counter()
                    await way(workshop, jobs)
                    times[way.__name__].append(time.perf_counter() - begin)
                    print(f"round {number + 1} {way.__name__}: {times[way.__name__][-1]:.1f} s", flush=True)
    serial, parallel = (statistics.median(times[way.__name__]) for way in WAYS)
    return (
        f"parallel_targets: targets={len(TARGETS)} sequential_s={serial:.1f} parallel_s={parallel:.1f} "
        f"ratio={parallel / serial:.2f} rounds={ROUNDS}"
    )


def _jobs(workshop: Workshop, label: str, code: ContextFile) -> list[TargetJob]:
    name = label.replace("_", "-")
    spec = {"base": BASE, "workdir": f"/srv/{name}", "packages": {"pypi": PACKAGES}}
    return [workshop.job(f"{name}-{profile}", spec, [code], profile=profile) for profile in TARGETS]
