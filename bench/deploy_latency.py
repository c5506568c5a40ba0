"""From an accepted ApplyDeployment to READY, artifact present, against the bare start of the same on the device until
the same readiness check answers: `podman run` of the image; the bundle's program in its environment, in the same
sandbox by the same command line. For each backend. Interleaved rounds; medians."""

import asyncio
import functools
import os
import signal
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from baremetal_agent.supervisor.records import LAUNCH, Launch
from bench._backends import BACKENDS, Backend
from longshore.v1 import deployment_pb2
from tests.support.device_machine import refused
from tests.support.site import PROJECT, Site

ROUNDS = 10
PORT = 18080
BareStart = Callable[[], Awaitable[float]]


def main() -> str:
    return "\n".join(asyncio.run(_measure(backend)) for backend in BACKENDS)


async def _measure(backend: Backend) -> str:
    async with backend.site() as site, BARE[backend.name](site, backend) as bare_start:
        ours, bare = [], []
        for number in range(ROUNDS):
            ours.append(await _deploy(site, backend.spec(f"round-{number}")))
            bare.append(await bare_start())
            print(f"round {number}: deploy {ours[-1] * 1000:.0f} ms, bare {bare[-1] * 1000:.0f} ms", flush=True)
    us, them = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    added = statistics.median(a - b for a, b in zip(ours, bare, strict=True))
    return (
        f"deploy_latency: backend={backend.name} ratio={ratio:.3f} deploy_ms={us * 1000:.0f} bare_ms={them * 1000:.0f} "
        f"added_ms={added * 1000:.0f} rounds={ROUNDS} (medians; accepted RPC to READY, bare start to an answer)"
    )


async def _deploy(site: Site, text: str) -> float:
    """Seconds from the accepted call to the event that says READY, as a client sees both."""
    path = site.write(text)

    def deploy_and_wait() -> tuple[deployment_pb2.Deployment, float]:
        answer = site.client.deploy(path, PROJECT, build_id=site.build_id)
        accepted = time.monotonic()
        follow = functools.partial(site.client.watch_events, PROJECT, after=answer.events_from, follow=True)
        for event in follow(deployment_id=answer.deployment.id):
            if event.state == "READY":
                return answer.deployment, time.monotonic() - accepted
        raise RuntimeError("the event stream ended")

    deployment, seconds = await asyncio.to_thread(deploy_and_wait)
    await site.delete(deployment)
    return seconds


@asynccontextmanager
async def _podman_run(site: Site, backend: Backend) -> AsyncIterator[BareStart]:
    """Of the image, which is on the device."""
    warm = await site.deploy(backend.spec("warm"))
    await site.reaches(warm, "READY")
    artifact = (await site.call(site.client.get_build, site.build_id)).targets[0].artifact
    await site.delete(warm)
    argv = ["podman", "run", "-d", "--name", "bare", "-p", f"{PORT}:8080", f"{artifact.repository}@{artifact.digest}"]

    async def start() -> float:
        began = time.monotonic()
        await site.device.run(*argv)
        await asyncio.to_thread(_until_answers, f"http://{site.device.address}:{PORT}/")
        seconds = time.monotonic() - began
        await site.device.run("podman", "rm", "-f", "-t", "1", "bare")
        return seconds

    yield start


@asynccontextmanager
async def _by_hand(site: Site, backend: Backend) -> AsyncIterator[BareStart]:
    """With the command line of an instance that runs on beside it."""
    warm = await site.deploy(backend.spec("warm").replace("500ms", "10s"))
    await site.reaches(warm, "READY")
    (file,) = site.folder.glob(f"agent/virtualenv/instances/*/{LAUNCH}")
    launch = Launch(file.read_text())
    argv, environment = launch.all("arg"), dict(entry.split("=", 1) for entry in launch.all("env"))
    if launch.one("sandboxed"):
        # The options come from a descriptor there, and its end is told to another.
        argv = [argv[0], "--die-with-parent", *launch.all("sandbox"), *argv[argv.index("--") :]]

    async def start() -> float:
        began = time.monotonic()
        process = site.device.popen(argv, {**environment, "PORT": str(PORT)})
        await asyncio.to_thread(_until_answers, f"http://{site.device.address}:{PORT}/")
        seconds = time.monotonic() - began
        os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        await refused(site.device.address, PORT)
        return seconds

    yield start


BARE = {"podman": _podman_run, "virtualenv": _by_hand}


def _until_answers(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.005)
