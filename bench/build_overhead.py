"""What our builds cost over the same Containerfile and context built and pushed by hand.

Every round has a new working directory in the image, so that no layer comes from a cache; ours and the other take turns
in going first. Both have a storage of their own with the same settings and the same base.

`identical_ms`: a request that was built before, asked again.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.identical import identical_ms
from controller.builds import host
from controller.builds.context import make_context
from controller.builds.credentials import RegistryFiles
from controller.builds.image_build import BUILD_OPTIONS
from controller.builds.model import ContextFile, RegistryAccess, TargetJob
from controller.builds.plan import NOTHING
from controller.builds.settings import BuilderSettings
from controller.builds.targets import load_profiles
from tests.support.building import Workshop, builder_in, open_workshop

ROUNDS = 7
PROFILE = load_profiles()["x86-cpu"]
PACKAGES = ["numpy", "flask"]


class ByHand:
    """`podman build` and `podman push` of what our builder would build, in a storage beside its."""

    def __init__(self, workshop: Workshop) -> None:
        registry = workshop.registry
        self._workshop = workshop
        self._access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
        self._builder = builder_in(workshop.folder / "hand", self._access, workshop.uploads)
        self._podman = self._builder.podman

    async def prepare(self, job: TargetJob) -> None:
        """Brings the base into the storage, under the name that the Containerfile says."""
        await self._builder.recover()
        await self._builder.build(job, lambda *_: None, lambda _: None)
        images = await self._podman.run("images", "--format", "{{.Repository}}:{{.Tag}}")
        base = next(name for name in images.stdout.split() if "/longshore/base/" in name)
        await self._podman.run("tag", base, PROFILE.base)

    async def build(self, job: TargetJob) -> None:
        folder = self._podman.temporary / job.build_id
        make_context(folder, job, PROFILE, PROFILE.base, NOTHING, self._workshop.uploads)
        settings = await host.read(BuilderSettings())
        secrets = host.write_secrets(folder / "secrets", settings, settings, host.programs(BuilderSettings()), {})
        options = [part for name, path in secrets.items() for part in ("--secret", f"id={name},src={path}")]
        pushing = await RegistryFiles(folder, self._access).options()
        begin = time.perf_counter()
        name = f"{job.repository}:{job.build_id}"
        steps = ("--network", "host")
        argv = ["build", *BUILD_OPTIONS, *steps, *options, "-t", name, "-f", str(folder / "Containerfile"), str(folder)]
        for arguments in (argv, ["push", *pushing, name]):
            done = await self._podman.run(*arguments)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
        self.seconds = time.perf_counter() - begin

    async def close(self) -> None:
        await self._builder.close()


async def measure() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        async with open_workshop(Path(folder)) as workshop:
            file = await workshop.upload("server.py", b"print('ready')\n" * 1000)
            hand = ByHand(workshop)
            try:
                cold = await compare(workshop, hand, file)
            finally:
                await hand.close()
        return f"{cold} identical_ms={await identical_ms(Path(folder) / 'controller'):.1f}"


async def compare(workshop: Workshop, hand: ByHand, file: ContextFile) -> str:
    await hand.prepare(_job(workshop, "warm-hand", file))
    await workshop.build(_job(workshop, "warm-ours", file))
    ours: list[float] = []
    theirs: list[float] = []

    async def our_turn(name: str) -> None:
        begin = time.perf_counter()
        await workshop.build(_job(workshop, f"ours-{name}", file, name))
        ours.append(time.perf_counter() - begin)

    async def their_turn(name: str) -> None:
        await hand.build(_job(workshop, f"hand-{name}", file, name))
        theirs.append(hand.seconds)

    for number in range(ROUNDS):
        turns: list[Callable[[str], Awaitable[None]]] = [our_turn, their_turn]
        for turn in turns if number % 2 else reversed(turns):
            await turn(f"round{number}")
        print(f"build_overhead: round {number + 1}: ours {ours[-1]:.2f} s, by hand {theirs[-1]:.2f} s", flush=True)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return (
        f"build_overhead: ratio={mine / other:.3f} ours_s={mine:.2f} podman_build_and_push_s={other:.2f} "
        f"rounds={ROUNDS} packages={'+'.join(PACKAGES)} layers=uncached"
    )


def _job(workshop: Workshop, build_id: str, file: ContextFile, folder: str = "warm") -> TargetJob:
    spec = {"packages": {"pypi": PACKAGES}, "workdir": f"/{folder}"}
    return workshop.job(build_id, spec, [file], entrypoint=("python3", "server.py"), ports=(8000,))


def main() -> str:
    """Prints a line for each round; returns the last line."""
    return asyncio.run(measure())
