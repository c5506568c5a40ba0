"""A builder whose disk is full, whose memory is short, whose Podman is killed, whose registry takes nothing: each with
real Podman, an image that is a busybox, and a disk of a few megabytes."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.builds.model import BuildFailed, RegistryAccess
from controller.builds.uploads import UploadStore
from tests.support.async_waiting import until
from tests.support.building import Workshop, builder_in, mounts_below, processes_of
from tests.support.registry import running_registry
from tests.support.tiny_images import Registry, push_tiny

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("bad_days")]


def mount(folder: Path, mib: int) -> None:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", folder], check=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    """Its builder has a disk of 64 MiB, its registry one of 12."""
    folder = tmp_path_factory.mktemp("days")
    disks = [(folder / "builder", 64), (folder / "registry" / "registry" / "data", 12)]
    for disk, mib in disks:
        mount(disk, mib)
    try:
        async with running_registry(folder / "registry") as registry:
            access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
            uploads = UploadStore(folder / "uploads", min_free_bytes=0)
            builder = builder_in(folder / "builder", access, uploads)
            await builder.recover()
            yield Workshop(folder, registry, uploads, builder)
            await builder.close()
    finally:
        for disk, _ in disks:
            unmount(disk)
    assert mounts_below(folder) == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base(workshop: Workshop) -> str:
    registry = workshop.registry
    pusher = Registry(registry.address, registry.push_credentials(), registry.ca_file)
    made = await asyncio.to_thread(push_tiny, pusher, "alice/digits/tiny")
    return f"{made.repository}@{made.digest}"


async def failure_of(workshop: Workshop, build_id: str, spec: Mapping[str, Any]) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await workshop.build(workshop.job(build_id, spec))
    assert workshop.leftovers() == []
    return caught.value


def steps(base: str, *commands: str) -> dict[str, Any]:
    return {"base": base, "steps": list(commands), "allow_root": True}


async def test_a_disk_that_fills_in_a_step_is_said_so_and_is_free_again_afterwards(
    workshop: Workshop, base: str
) -> None:
    failure = await failure_of(workshop, "full", steps(base, "dd if=/dev/zero of=/big bs=1048576 count=200"))
    assert (failure.reason, failure.retryable) == ("DiskFull", True)
    assert failure.step.startswith("RUN dd if=/dev/zero")
    await workshop.build(workshop.job("fine", steps(base, "echo fine > /fine")))
    assert workshop.leftovers() == []


async def test_a_step_that_the_kernel_kills_ran_out_of_memory(workshop: Workshop, base: str) -> None:
    failure = await failure_of(workshop, "killed", steps(base, "sh -c 'kill -KILL $$'; exit $?"))
    assert (failure.reason, failure.retryable) == ("OutOfMemory", False)
    assert failure.step == "RUN sh -c 'kill -KILL $$'; exit $?"


async def test_a_podman_that_is_killed_is_tried_again_and_its_step_does_not_run_on(
    workshop: Workshop, base: str
) -> None:
    workshop.lines.clear()
    job = workshop.job("gone", steps(base, "echo it runs; sleep 1000"))
    building = asyncio.create_task(workshop.build(job))
    await until(lambda: "it runs" in workshop.output(), seconds=60)
    (podman,) = [pid for pid in processes_of(workshop.builder.podman.folder) if parent_of(pid) == os.getpid()]
    os.kill(podman, signal.SIGKILL)
    with pytest.raises(BuildFailed) as caught:
        await building
    assert (caught.value.reason, caught.value.retryable) == ("BuilderKilled", True)
    assert workshop.leftovers() == []


async def test_a_podman_that_is_gone_is_waited_for(
    workshop: Workshop, base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        with pytest.raises(BuildFailed, match="install the package podman") as caught:
            await workshop.build(workshop.job("absent", steps(base, "true")))
        assert (caught.value.reason, caught.value.retryable) == ("PodmanUnavailable", True)
    monkeypatch.undo()
    await workshop.build(workshop.job("absent", steps(base, "true")))
    assert workshop.leftovers() == []


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_registry_whose_disk_is_full_or_that_lets_only_pull_is_tried_again(
    workshop: Workshop, base: str
) -> None:
    noise = steps(base, "dd if=/dev/urandom of=/noise bs=1048576 count=14")
    failure = await failure_of(workshop, "noise", noise)
    assert (failure.reason, failure.retryable) == ("RegistryFails", True)
    assert "its disk is not full" in failure.message
    await workshop.registry.registry._restart(read_only=True)
    failure = await failure_of(workshop, "noise", noise)
    assert (failure.reason, failure.retryable) == ("RegistryReadOnly", True)
    await workshop.registry.registry._restart(read_only=False)


async def test_a_secret_that_a_step_prints_is_nowhere(workshop: Workshop, base: str) -> None:
    """Not where it is printed as it is, in base64, without an end of line, or on the line that fails the step."""
    workshop.lines.clear()
    secret = "hunter22-and-more"
    show = "cat /run/secrets/token; cat /run/secrets/token >&2; echo; echo aHVudGVyMjItYW5kLW1vcmU=; "
    job = workshop.job("secret", {**steps(base, f"{show} exit 3"), "secrets": ["token"]})
    with pytest.raises(BuildFailed) as caught:
        await workshop.build(replace(job, secrets={"token": secret.encode()}))
    said = "\n".join([*workshop.output(), *caught.value.last_lines, caught.value.message, caught.value.step])
    assert "***" in said
    assert secret not in said
    assert "aHVudGVyMjItYW5kLW1vcmU" not in said
