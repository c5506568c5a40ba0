"""Safe by default, each default loosened by its name alone; volumes, secrets and shares, each seen from inside."""

import os
from dataclasses import replace

import pytest

from edge_agent.podman.spec import volume_name
from edge_agent.runtime.backend import Handle
from edge_agent.runtime.model import Artifact, Resources, Secret, Volume
from tests.contract.machine import inside, launch
from tests.integration.podman_fixtures import image, machine, site
from tests.support.podman_machine import PodmanMachine

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-containers"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"


async def status_of(machine: PodmanMachine, handle: Handle) -> dict[str, str]:
    """/proc/self/status of the instance's first process."""
    lines = (await inside(machine, handle, "cat /proc/1/status")).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def allowed(machine: PodmanMachine, image: Artifact, *names: str) -> Handle:
    return await launch(machine, replace(machine.site.workload(image, POLITE), allow=frozenset(names)))


async def test_nothing_is_allowed_by_default(machine: PodmanMachine, image: Artifact) -> None:
    handle = await allowed(machine, image)
    status = await status_of(machine, handle)
    assert status["Uid"].split() == ["1000"] * 4
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "Read-only" in await inside(machine, handle, "echo x > /x")
    places = "for place in /tmp /var/tmp /run; do echo x > $place/x && echo $place; done"
    assert (await inside(machine, handle, places)).split() == ["/tmp", "/var/tmp", "/run"]


async def test_each_default_is_loosened_by_its_name(machine: PodmanMachine, image: Artifact) -> None:
    loose = await allowed(
        machine, image, "writable-root", "root", "new-privileges", "seccomp-unconfined", "CAP_SYS_NICE"
    )
    status = await status_of(machine, loose)
    assert status["Uid"].split() == ["0"] * 4
    assert int(status["CapEff"], 16) == 1 << 23
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "0")
    assert await inside(machine, loose, "echo x > /etc/x && cat /etc/x") == "x"


async def test_namespaces_of_the_device_are_shared_only_by_name(machine: PodmanMachine, image: Artifact) -> None:
    own = await allowed(machine, image)
    shared = await allowed(machine, image, "host-network", "host-pid", "host-ipc")
    pids = [await machine.inspect(handle, "State.Pid") for handle in (own, shared)]
    for kind in ("net", "pid", "ipc"):
        script = f"readlink /proc/1/ns/{kind} /proc/{pids[0]}/ns/{kind} /proc/{pids[1]}/ns/{kind}"
        device, own_one, shared_one = (await machine.site.device.run("sh", "-c", script)).split()
        assert own_one != device
        assert shared_one == device


async def test_volume_is_the_users_own_and_outlives_instance_and_revision(
    machine: PodmanMachine, image: Artifact
) -> None:
    workload = replace(machine.site.workload(image, POLITE), volumes=(Volume("data", "/data"),))
    first = await launch(machine, workload)
    assert await inside(machine, first, "echo kept > /data/file && cat /data/file") == "kept"
    await machine.backend.stop(first, 5)
    await machine.backend.remove(first)
    second = await launch(machine, replace(workload, revision=2, volumes=(Volume("data", "/data", read_only=True),)))
    assert await inside(machine, second, "cat /data/file") == "kept"
    assert "Read-only" in await inside(machine, second, "echo x > /data/file")
    await machine.backend.remove(second)
    name = volume_name(workload.deployment_id, "data")
    assert name in await machine.site.device.run("podman", "volume", "ls", "-q")
    await machine.backend.forget("another")
    assert name in await machine.site.device.run("podman", "volume", "ls", "-q")
    await machine.backend.forget(workload.deployment_id)
    await machine.backend.forget(workload.deployment_id)
    assert name not in await machine.site.device.run("podman", "volume", "ls", "-q")


async def test_secret_is_a_file_inside_and_in_nothing_that_podman_tells(
    machine: PodmanMachine, image: Artifact
) -> None:
    secret = Secret("token", "/run/secrets/token", b"hush \x00 now")
    handle = await launch(machine, replace(machine.site.workload(image, POLITE), secrets=(secret,)))
    result = await machine.backend.exec(handle, ["cat", "/run/secrets/token"], 20)
    assert result.output == secret.content
    assert await inside(machine, handle, "echo x > /run/secrets/token 2>&1; true") != ""
    told = await machine.site.device.run("podman", "inspect", handle.value)
    assert "hush" not in told
    places = "find /run/longshore -name 0 | wc -l"
    assert await machine.site.device.run("sh", "-c", places) == "1\n"
    await machine.backend.remove(handle)
    assert await machine.site.device.run("sh", "-c", places) == "0\n"


async def test_secrets_that_a_killed_agent_left_are_gone_after_the_next_tidying(
    machine: PodmanMachine, image: Artifact
) -> None:
    secret = Secret("token", "/run/secrets/token", b"hush")
    handle = await launch(machine, replace(machine.site.workload(image, POLITE), secrets=(secret,)))
    await machine.site.device.run("podman", "rm", "-f", "-t", "0", handle.value)
    await machine.restart_agent()
    await machine.backend.prune(frozenset({image.digest}))
    assert await machine.site.device.run("sh", "-c", "find /run/longshore -name 0 | wc -l") == "0\n"


async def test_share_of_the_processor_is_what_a_program_sees(machine: PodmanMachine, image: Artifact) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    workload = machine.site.workload(image, POLITE)
    handles = [
        await launch(machine, replace(each, resources=Resources(cpu_millis=500)))
        for each in (workload, machine.site.workload(image, POLITE))
    ]
    seen = [(await status_of(machine, handle))["Cpus_allowed_list"] for handle in handles]
    assert len(set(seen)) == 2, "the second one gets the core that the first one does not have"
    assert await inside(machine, handles[0], "echo $OMP_NUM_THREADS $NPROC") == "1 1"
    pinned = await launch(machine, replace(machine.site.workload(image, POLITE), resources=Resources(cpu_set="1")))
    assert (await status_of(machine, pinned))["Cpus_allowed_list"] == "1"


async def test_shared_memory_has_the_size_that_was_asked_for(machine: PodmanMachine, image: Artifact) -> None:
    limits = Resources(shared_memory_bytes=8 * 2**20)
    handle = await launch(machine, replace(machine.site.workload(image, POLITE), resources=limits))
    mounts = (await inside(machine, handle, "cat /proc/mounts")).splitlines()
    assert "size=8192k" in next(line for line in mounts if " /dev/shm " in line)
