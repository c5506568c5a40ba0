"""A controller that was killed in the middle of a build: the next one ends and removes what it left."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.building import Workshop, open_workshop, processes_of
from tests.support.package_index import PACKAGE, PackageIndex, running_index

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("builder")]

# A controller of its own process, as far as building goes.
CONTROLLER = """
import asyncio, sys
from pathlib import Path
from controller.builds.model import RegistryAccess, TargetJob
from controller.builds.uploads import UploadStore
from controller.spec.model import BuildSpec
from tests.support.building import builder_in

folder, address, ca_file, user, password, package = sys.argv[1:]
access = RegistryAccess(address, Path(ca_file), lambda: (user, password))
spec = BuildSpec.model_validate({"packages": {"pypi": [package]}})
job = TargetJob("killed", "alice", "vision", "digits", "x86-cpu", spec, f"{address}/alice/digits")
builder = builder_in(Path(folder) / "builder", access, UploadStore(Path(folder) / "uploads"))
asyncio.run(builder.build(job, lambda *line: None, lambda state: None))
"""


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path / "workshop") as opened:
        yield opened


@pytest.fixture
async def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PackageIndex]:
    async with running_index(tmp_path / "index") as running:
        monkeypatch.setenv("PIP_INDEX_URL", running.url)
        # The index holds its answer back for as long as a test needs, also on a busy machine.
        monkeypatch.setenv("PIP_TIMEOUT", "600")
        monkeypatch.setenv("SSL_CERT_FILE", str(running.ca_file))
        running.open.clear()
        yield running


async def kill_a_controller_in_a_step(workshop: Workshop, index: PackageIndex) -> None:
    registry = workshop.registry
    arguments = (str(workshop.folder), registry.address, str(registry.ca_file), *registry.push_credentials(), PACKAGE)
    controller = await asyncio.create_subprocess_exec(sys.executable, "-c", CONTROLLER, *arguments)
    await asyncio.wait_for(index.asked.wait(), 120)
    controller.kill()
    await controller.wait()


@pytest.mark.parametrize("podman_too", [False, True])
async def test_what_a_killed_controller_left_is_ended_and_removed(
    workshop: Workshop, index: PackageIndex, podman_too: bool
) -> None:
    await kill_a_controller_in_a_step(workshop, index)
    folder = workshop.builder.podman.folder
    left = processes_of(folder)
    assert left != []
    if podman_too:
        # As after the kernel's out-of-memory killer: the RUN step's own process runs on, with nothing above it.
        for pid in left:
            if b"build" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
    await workshop.builder.recover()
    assert workshop.leftovers() == []
    index.open.set()
    artifact = await workshop.build(workshop.job("next", {"packages": {"pypi": [PACKAGE]}}))
    assert artifact.digest.startswith("sha256:")
    assert workshop.leftovers() == []


async def test_a_builder_leaves_other_builders_alone(workshop: Workshop, index: PackageIndex) -> None:
    building = asyncio.create_task(workshop.build(workshop.job("mine", {"packages": {"pypi": [PACKAGE]}})))
    await asyncio.wait_for(index.asked.wait(), 120)
    async with open_workshop(workshop.folder / "other") as other:
        await other.builder.recover()
    index.open.set()
    assert (await asyncio.wait_for(building, 120)).digest.startswith("sha256:")
