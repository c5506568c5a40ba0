"""Bad days of a device with Podman: what is killed, cut off or missing, and what an agent makes of it."""

import asyncio
from dataclasses import replace

import pytest

from edge_agent.runtime.backend import BackendError, BackendUnavailable, Handle, LogQuery, Phase
from edge_agent.runtime.model import Artifact
from tests.contract.machine import await_lines, await_observed, find, has_ended, ignore, read
from tests.contract.shell_commands import lasting
from tests.integration.podman_fixtures import image, machine, site
from tests.support.podman_machine import PodmanMachine, PodmanSite, until
from tests.support.remote_backend import RemoteBackend

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-faults"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "echo ready; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"


async def launch(machine: PodmanMachine, image: Artifact) -> Handle:
    workload = machine.site.workload(image, POLITE)
    await machine.backend.prepare(workload, ignore)
    return await machine.backend.start(workload)


async def test_after_a_power_cut_instances_have_ended_and_start_again(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, POLITE)
    await machine.backend.prepare(workload, ignore)
    handle = await machine.backend.start(workload)
    await machine.site.device.power_cut()
    await machine.site.device.boot()
    await machine.restart_agent()
    seen = await find(machine.backend, handle)
    assert seen is not None
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, None)
    again = await machine.backend.start(workload)
    assert [one.handle for one in await machine.backend.list()] == [again]
    assert await await_lines(machine.backend, again, 1) == ["ready"]


async def test_killed_service_disturbs_nothing_and_is_started_again(machine: PodmanMachine, image: Artifact) -> None:
    first = await launch(machine, image)
    pid = await machine.inspect(first, "State.Pid")
    await machine.kill_service()
    second = await launch(machine, image)
    assert {seen.handle for seen in await machine.backend.list()} == {first, second}
    assert await machine.inspect(first, "State.Pid") == pid
    await machine.kill_service()
    await machine.backend.remove(first)
    assert [seen.handle for seen in await machine.backend.list()] == [second]


async def test_session_with_a_command_breaks_with_the_service_and_leaves_nothing(
    machine: PodmanMachine, image: Artifact
) -> None:
    handle = await launch(machine, image)
    session = await machine.backend.open_exec(handle, ["sh", "-c", "echo begun; sleep 87654 & sleep 87654; wait"], None)
    assert await session.read() == ("stdout", b"begun\n")
    await machine.kill_service()
    with pytest.raises(BackendUnavailable, match="broke off"):
        await session.wait()
    assert await lasting(machine.site.device, 87654) == 2
    await session.close()
    assert await lasting(machine.site.device, 87654) == 0
    assert [seen.phase for seen in await machine.backend.list()] == [Phase.RUNNING]


async def test_quiet_device_has_no_service_and_still_sees_a_death(machine: PodmanMachine, image: Artifact) -> None:
    handle = await launch(machine, image)
    pid = await machine.inspect(handle, "State.Pid")

    async def no_service() -> bool:
        return await machine.service_pids() == []

    await until(no_service)
    (seen,) = await machine.backend.list()
    assert seen.phase is Phase.RUNNING
    assert await read(machine.backend.logs(handle, LogQuery())) == ["ready"]
    assert (await machine.backend.stats(handle)).memory_kib > 0
    assert await no_service()
    hints = machine.backend.watch()
    hint = asyncio.ensure_future(anext(aiter(hints)))
    await machine.backend.list()
    await machine.site.device.run("kill", "-9", pid)
    async with asyncio.timeout(2):
        await hint
    assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 137


async def test_dead_monitor_does_not_hide_that_the_instance_died(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, POLITE)
    await machine.backend.prepare(workload, ignore)
    handle = await machine.backend.start(workload)
    monitor, pid = await machine.inspect(handle, "State.ConmonPid"), await machine.inspect(handle, "State.Pid")
    await machine.site.device.run("kill", "-9", monitor, pid)
    seen = await await_observed(machine.backend, handle, has_ended)
    assert seen.exit_reason == "MonitorLost"
    again = await machine.backend.start(workload)
    assert [(one.handle, one.phase) for one in await machine.backend.list()] == [(again, Phase.RUNNING)]


async def test_instance_outlives_its_monitor_and_can_be_stopped(machine: PodmanMachine, image: Artifact) -> None:
    handle = await launch(machine, image)
    await machine.site.device.run("kill", "-9", await machine.inspect(handle, "State.ConmonPid"))
    seen = await find(machine.backend, handle)
    assert seen is not None
    assert seen.phase is Phase.RUNNING
    await machine.backend.stop(handle, 10)
    assert has_ended(await await_observed(machine.backend, handle, has_ended))
    await machine.backend.remove(handle)
    assert await machine.backend.list() == []


async def test_agent_killed_between_create_and_start_leaves_what_can_be_removed(
    machine: PodmanMachine, image: Artifact
) -> None:
    handle = await launch(machine, image)
    template = "{{range $k, $v := .Config.Labels}}--label={{$k}}={{$v}}\n{{end}}"
    labels = await machine.podman("inspect", "--format", template, handle.value)
    await machine.backend.remove(handle)
    await machine.podman("create", *labels.split(), image.reference)
    await machine.restart_agent()
    (left,) = await machine.backend.list()
    assert (left.phase, left.exit_code) == (Phase.EXITED, None)
    await machine.backend.remove(left.handle)
    assert await machine.backend.list() == []


async def test_pull_that_was_cut_off_goes_on_when_the_network_is_back(machine: PodmanMachine, site: PodmanSite) -> None:
    artifact = await site.image(extra_bytes=60_000_000)
    workload = site.workload(artifact, POLITE)
    begun = asyncio.Event()
    preparing = asyncio.ensure_future(machine.backend.prepare(workload, lambda _: begun.set()))
    async with asyncio.timeout(20):
        await begun.wait()
    await site.device.link(up=False)
    await machine.kill_service()
    failed = await asyncio.gather(preparing, return_exceptions=True)
    await site.device.link(up=True)
    assert getattr(failed[0], "retryable", None) is True
    await machine.backend.prepare(workload, ignore)
    handle = await machine.backend.start(workload)
    assert await find(machine.backend, handle) is not None
    left = await site.device.run("sh", "-c", f"ls {site.folder}/{machine.owner}/tmp")
    assert left.strip() == ""


async def test_disk_that_is_full_is_a_retryable_error_and_clears_up(machine: PodmanMachine, site: PodmanSite) -> None:
    workload = site.workload(await site.image(extra_bytes=30_000_000), POLITE)
    scratch = f"{site.folder}/{machine.owner}/tmp"
    await site.device.run("mkdir", "-p", scratch)
    await site.device.run("mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", scratch)
    try:
        with pytest.raises(BackendError) as caught:
            await machine.backend.prepare(workload, ignore)
    finally:
        await site.device.run("umount", scratch)
    assert (caught.value.reason, caught.value.retryable) == ("DiskFull", True)
    await machine.backend.prepare(workload, ignore)
    assert await find(machine.backend, await machine.backend.start(workload)) is not None


async def test_start_that_is_cancelled_leaves_nothing(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, POLITE)
    await machine.backend.prepare(workload, ignore)
    await machine.backend.list()
    starting = asyncio.create_task(machine.backend.start(workload))
    # Answered from what the agent knows: the request to create is on its way then, and not answered.
    await machine.backend.list()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    async def nothing_left() -> bool:
        names = await machine.site.device.run("podman", "ps", "-a", "--format", "{{.Names}}")
        return f"-{workload.name}-" not in names and await machine.backend.list() == []

    await until(nothing_left)


async def test_device_without_podman_says_so(machine: PodmanMachine, site: PodmanSite) -> None:
    empty = site.folder / "empty-path"
    empty.mkdir(exist_ok=True)
    agent = await RemoteBackend.launch(
        lambda argv: site.device.command(["/usr/bin/env", f"PATH={empty}", site.device.python, *argv[1:]]),
        replace(site.options("nobody")),
    )
    try:
        facts = await agent.probe()
    finally:
        await agent.close()
    assert facts.problem.startswith("PodmanNotInstalled: ")
