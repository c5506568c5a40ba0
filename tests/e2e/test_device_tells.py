"""What a whole device tells of itself: what it is, what its instances use, and that its disk fills up."""

from pathlib import Path

import pytest

from longshore.v1 import deployment_pb2
from tests.support.site import Site, running_site, spec_text

pytestmark = pytest.mark.podman
MIB = 2**20


def is_measured(answer: deployment_pb2.GetDeploymentResponse) -> bool:
    (instance,) = answer.instances
    metrics = instance.use.metrics
    # The agent's checks have asked the service by its network.
    return instance.use.HasField("cpu_millis_per_second") and metrics.network_sent_bytes > 0


async def on_a_small_disk(site: Site) -> Path:
    """Afterwards the agent's state lies on a disk of 300 MiB of its own."""
    place = site.folder / "agent"
    place.mkdir()
    await site.device.run("mount", "-t", "tmpfs", "-o", "size=300m", "none", str(place))
    return place


async def test_a_device_tells_what_it_is_what_runs_there_uses_and_that_its_disk_is_nearly_full(tmp_path: Path) -> None:
    async with running_site(tmp_path, enroll=False) as site:
        place = await on_a_small_disk(site)
        await site.enroll()
        await site.device.run("sh", "-c", f"echo 'metrics_interval = 1.0' > {place}/agent.toml")
        await site.start_agent()
        device = await site.seen_device(lambda device: len(device.facts.disks) == 2 and bool(device.facts.capabilities))
        assert device.facts.backend.startswith("podman ")
        assert {"exec", "isolation:container", "artifact:image"} <= set(device.facts.capabilities)
        sizes = {disk.path: (disk.size_bytes, disk.free_bytes) for disk in device.facts.disks}
        assert sizes[str(place)] == (300 * MIB, 256 * MIB)

        deployment = await site.deploy(spec_text("service"))
        await site.reaches(deployment, "READY")
        answer = await site.eventually(deployment, is_measured, why="it is measured")
        used = answer.instances[0].use.metrics
        assert used.cpu_millis > 0
        assert used.memory_peak_kib >= used.memory_kib > 0

        running = await site.containers()
        await site.device.run("sh", "-c", f"head -c {270 * MIB} /dev/zero > {place}/ballast")
        told = await site.seen_device(lambda device: device.agent_condition.startswith("DiskNearlyFull: "))
        assert f"less than 64 MiB of 300 MiB are free at {place}, 75 MiB should be" in told.agent_condition
        await site.device.run("rm", f"{place}/ballast")
        await site.seen_device(lambda device: device.agent_condition == "")
        assert await site.containers() == running
        await site.reaches(deployment, "READY")
