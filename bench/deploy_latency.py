"""From an accepted ApplyDeployment to READY, image present, against `podman run` of the same image on the same device
until the same readiness check answers. Interleaved rounds; medians."""

import asyncio
import functools
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from longshore.v1 import deployment_pb2
from tests.support.site import PROJECT, Site, running_site, spec_text

ROUNDS = 10
PORT = 18080


def main() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> str:
    async with running_site(folder) as site:
        warm = await site.deploy(spec_text("warm"))
        await site.reaches(warm, "READY")
        build = await site.call(site.client.get_build, site.build_id)
        artifact = build.targets[0].artifact
        await site.delete(warm)
        ours, bare = [], []
        for number in range(ROUNDS):
            ours.append(await _deploy(site, number))
            bare.append(await _podman_run(site, f"{artifact.repository}@{artifact.digest}"))
            print(f"round {number}: deploy {ours[-1] * 1000:.0f} ms, podman run {bare[-1] * 1000:.0f} ms", flush=True)
    us, them = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return (
        f"deploy_latency: ratio={ratio:.3f} deploy_ms={us * 1000:.0f} podman_run_ms={them * 1000:.0f} rounds={ROUNDS} "
        f"(medians; accepted RPC to READY against podman run to the same check's answer)"
    )


async def _deploy(site: Site, number: int) -> float:
    """Seconds from the accepted call to the event that says READY, as a client sees both."""
    path = site.write(spec_text(f"round-{number}", host=PORT))

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


async def _podman_run(site: Site, image: str) -> float:
    """Seconds from the command to the first answer of its readiness check."""
    name = "bare"
    argv = ["podman", "run", "-d", "--name", name, "-p", f"{PORT}:8080", image]
    began = time.monotonic()
    await site.device.run(*argv)
    await asyncio.to_thread(_until_answers, f"http://{site.device.address}:{PORT}/")
    seconds = time.monotonic() - began
    await site.device.run("podman", "rm", "-f", "-t", "1", name)
    return seconds


def _until_answers(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.005)
