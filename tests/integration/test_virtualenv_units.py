"""Bundles in units of systemd, on a simulated device that it runs: their limits, their sandbox, what is left of them,
and what becomes of them when systemd itself fails."""

import json
import os
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import BackendError, BackendUnavailable, Handle, LogQuery, Observed, Phase
from edge_agent.runtime.model import Artifact, Resources, Volume, Workload
from tests.contract.machine import await_lines, await_observed, has_ended, ignore, inside, launch
from tests.support import device_systemd
from tests.support.async_waiting import until_holds
from tests.support.remote_backend import RemoteBackend
from tests.support.virtualenv_machine import VirtualenvMachine, VirtualenvSite, systemd_deaf, virtualenv_site

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-units"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not device_systemd.available(), reason="needs systemd's program; apt-get install systemd"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
COUNTS = "trap 'exit 4' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done"
LIMITS = Resources(memory_bytes=64 * 2**20, pids=20, cpu_millis=200, cpu_set="0")
# A character device that everybody may use and no unit has by default: the one that makes network interfaces.
LAMP = {
    "cdiVersion": "0.5.0",
    "kind": "acme.com/lamp",
    "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/run/lamp"}]}}],
}


class UnitsMachine(VirtualenvMachine):
    """One agent; `artifact` is what its workloads run."""

    def __init__(self, site: VirtualenvSite, owner: str, artifact: Artifact) -> None:
        super().__init__(site, owner)
        self.artifact = artifact

    def workload(self, script: str = POLITE, **changes: Any) -> Workload:
        return replace(self.site.workload(self.artifact, script), **changes)

    async def launch(self, script: str = POLITE, **changes: Any) -> Handle:
        return await launch(self, self.workload(script, **changes))

    async def inside(self, handle: Handle, script: str) -> str:
        return await inside(self, handle, script)

    async def outside(self, script: str) -> str:
        return await self.site.device.shell(script)

    async def end_of(self, handle: Handle) -> Observed:
        return await await_observed(self.backend, handle, has_ended)

    async def show(self, unit: str, *names: str) -> dict[str, str]:
        said = await self.outside(f"systemctl show {unit} -p {','.join(names)}")
        return dict(line.split("=", 1) for line in said.splitlines())

    async def group(self, handle: Handle, controller: str) -> str:
        """The folder of the control group that the workload's own process is in, as the device has it."""
        lines = (await self.outside(f"cat /proc/{self.started(handle)['pid']}/cgroup")).splitlines()
        paths = {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
        return (
            f"/sys/fs/cgroup/{controller}{paths[controller]}" if controller in paths else f"/sys/fs/cgroup{paths['']}"
        )

    async def supervisor(self, handle: Handle) -> int:
        return int((self.state / "instances" / handle.value / "lock").read_text())


def unit_of(handle: Handle) -> str:
    return f"longshore-{handle.value}.scope"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualenvSite]:
    async with virtualenv_site(tmp_path_factory.mktemp("site"), {}, systemd=True) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(site: VirtualenvSite) -> Artifact:
    return await site.bundle()


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: VirtualenvSite, artifact: Artifact) -> AsyncIterator[UnitsMachine]:
    async with UnitsMachine(site, f"owner-{next(site.numbers)}", artifact) as made:
        yield made


async def test_limits_are_those_of_the_unit_and_stay_when_systemd_loads_anew(machine: UnitsMachine) -> None:
    handle = await machine.launch(resources=LIMITS)
    for command in ("daemon-reload", "daemon-reexec"):
        await machine.site.device.run("systemctl", command)
        shown = await machine.show(
            unit_of(handle), "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "Slice", "DevicePolicy", "Delegate"
        )
        assert shown == {
            "MemoryMax": str(68 * 2**20), "TasksMax": "21", "CPUQuotaPerSecUSec": "200ms",
            "Slice": "longshore.slice", "DevicePolicy": "closed", "Delegate": "yes",
        }  # fmt: skip
    for controller, names, value in (
        ("memory", "memory.limit_in_bytes memory.max", str(68 * 2**20)),
        ("pids", "pids.max", "21"),
        ("cpu", "cpu.cfs_quota_us cpu.max", "20000"),
        ("cpuset", "cpuset.cpus", "0"),
    ):
        folder = await machine.group(handle, controller)
        assert f"longshore.slice/{unit_of(handle)}" in folder
        assert value in await machine.outside(f"cd {folder} && cat {names} 2>/dev/null")
    swap = "cat memory.memsw.limit_in_bytes memory.swap.max 2>/dev/null"
    assert await machine.outside(f"cd {await machine.group(handle, 'memory')} && {swap}") in (str(68 * 2**20), "0")


async def test_limits_hold_for_the_workload_and_what_enters_it(machine: UnitsMachine) -> None:
    handle = await machine.launch(resources=LIMITS)
    assert "ork" in await machine.inside(handle, "for n in $(seq 40); do sleep 1 & done 2>&1")
    busy = "import time\nend = time.time() + 1\nwhile time.time() < end: pass\nprint(time.process_time())"
    result = await machine.backend.exec(handle, ["python", "-c", busy], 60)
    assert float(result.output) < 0.5
    assert await machine.inside(handle, "nproc") == "1"


async def test_memory_that_is_too_much_is_told_as_such(machine: UnitsMachine) -> None:
    hungry = ("python", "-c", "b = bytearray(200 * 2**20); print(len(b))")
    handle = await machine.launch(entrypoint=hungry, resources=replace(LIMITS, cpu_millis=0))
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (137, "OutOfMemory")


async def test_least_memory_that_a_spec_can_ask_for_is_enough_for_what_needs_no_more(machine: UnitsMachine) -> None:
    handle = await machine.launch("echo here; " + POLITE, resources=Resources(memory_bytes=4 * 2**20))
    assert await await_lines(machine.backend, handle, 1) == ["here"]
    assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(handle, Phase.RUNNING)]


async def test_sandbox_holds(machine: UnitsMachine) -> None:
    volumes = (Volume("data", "/data"),)
    other = await machine.launch(volumes=volumes)
    assert await machine.inside(other, "echo secret > /data/file; echo secret > /tmp/file; cat /data/file") == "secret"
    handle = await machine.launch(volumes=volumes)
    assert "Read-only" in await machine.inside(handle, "touch /usr/x /etc/x 2>&1")
    hidden = f"ls -d {machine.state} {machine.state}/* /root /home/* /var/lib /run/systemd 2>/dev/null"
    assert await machine.inside(handle, hidden) == ""
    assert await machine.inside(handle, "ls -A /tmp /data") == "/data:\n\n/tmp:"
    assert await machine.inside(handle, "id -u") != await machine.inside(other, "id -u")
    assert await machine.inside(handle, f"kill -0 {machine.started(other)['pid']} 2>&1; true") != ""
    status = await machine.inside(handle, "grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status")
    assert status.split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


async def test_devices_are_refused_but_for_those_of_the_spec_even_outside_of_the_sandbox(machine: UnitsMachine) -> None:
    await machine.site.device.run("mknod", "-m", "666", "/run/lamp", "c", "10", "200")
    await machine.site.device.run(
        "sh", "-c", f"mkdir -p /run/cdi; echo {shlex.quote(json.dumps(LAMP))} > /run/cdi/x.json"
    )
    use = "exec 3<>/run/lamp && echo used"
    plain, granted = await machine.launch(), await machine.launch(devices=("acme.com/lamp=0",))
    assert await machine.inside(granted, use) == "used"
    assert await machine.inside(plain, f"{use} 2>&1") != "used"
    for handle, said in ((plain, "not permitted"), (granted, "used")):
        group = await machine.group(handle, "devices")
        assert said in await machine.outside(f"echo 0 > {group}/cgroup.procs; {use}")


async def test_supervisor_is_in_the_unit_and_so_is_the_one_that_replaces_it(machine: UnitsMachine) -> None:
    handle = await machine.launch(COUNTS)
    await await_lines(machine.backend, handle, 10)
    first = await machine.supervisor(handle)
    await machine.site.device.run("kill", "-9", str(first))
    await until_holds(lambda: replaced(machine, handle, first))
    second = await machine.supervisor(handle)
    assert unit_of(handle) in await machine.outside(f"cat /proc/{second}/cgroup")
    lines = await await_lines(machine.backend, handle, 100)
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    await machine.backend.stop(handle, 5)
    assert (await machine.end_of(handle)).exit_code == 4


async def replaced(machine: UnitsMachine, handle: Handle, supervisor: int) -> bool:
    assert [seen.phase for seen in await machine.backend.list()] == [Phase.RUNNING]
    return await machine.supervisor(handle) != supervisor


async def test_end_of_what_has_no_namespace_of_processes_is_seen_and_leaves_none(machine: UnitsMachine) -> None:
    handle = await machine.launch(
        "trap '' TERM; setsid sleep 7171 & while :; do sleep 1; done", allow=frozenset({"host-pid"})
    )
    await machine.backend.stop(handle, 0.2)
    assert (await machine.end_of(handle)).exit_code == 137
    assert await machine.outside("pgrep -f '^sleep 7171'") == ""


async def test_journal_is_told_of_start_and_end(machine: UnitsMachine) -> None:
    handle = await machine.launch("exit 3")
    await machine.end_of(handle)

    async def told() -> bool:
        said = await machine.outside(f"journalctl --no-pager -o cat -u {unit_of(handle)}")
        return "Started" in said and "ended with 3" in said

    await until_holds(told)


async def test_unit_is_gone_with_its_instance_and_the_slice_with_the_agent(machine: UnitsMachine) -> None:
    handle = await machine.launch()
    assert (await machine.show(unit_of(handle), "ActiveState"))["ActiveState"] == "active"
    await machine.backend.remove(handle)
    assert (await machine.show(unit_of(handle), "LoadState"))["LoadState"] == "not-found"
    assert await machine.outside("find /sys/fs/cgroup -name 'longshore-*'") == ""
    await machine.backend.forget(None)
    assert await machine.outside("systemctl list-units --all --no-legend 'longshore*'") == ""
    assert await machine.outside("find /sys/fs/cgroup -name 'longshore*'") == ""


async def test_leaving_touches_no_unit_of_another_agent(machine: UnitsMachine) -> None:
    handle = await machine.launch()
    async with machine.other_owner() as other:
        await other.forget(None)
    assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(handle, Phase.RUNNING)]


async def test_unit_that_somebody_stops_does_not_pass_for_a_failure(machine: UnitsMachine) -> None:
    handle = await machine.launch()
    await machine.site.device.run("systemctl", "stop", unit_of(handle))
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (None, "PowerLost")


async def test_systemd_that_does_not_answer_refuses_starts_for_now_and_disturbs_nothing(machine: UnitsMachine) -> None:
    running, fresh = await machine.launch("echo here; " + POLITE), machine.workload()
    await machine.backend.prepare(fresh, ignore)
    async with systemd_deaf(machine.site.device):
        with pytest.raises(BackendUnavailable) as caught:
            await machine.backend.start(fresh)
        assert (caught.value.reason, caught.value.retryable) == ("SystemdUnavailable", True)
        assert "Failed to connect to bus" in caught.value.message
        assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(running, Phase.RUNNING)]
        assert await machine.inside(running, "echo inside") == "inside"
        assert [line.text async for line in machine.backend.logs(running, LogQuery())] == ["here"]
        await machine.backend.stop(running, 5)
        await machine.backend.remove(running)
        assert await machine.backend.list() == []
    await machine.backend.start(fresh)
    assert len(await machine.backend.list()) == 1


async def test_start_that_systemd_refuses_is_no_failure_of_the_device(machine: UnitsMachine) -> None:
    workload = machine.workload(resources=Resources(memory_bytes=2**70))
    await machine.backend.prepare(workload, ignore)
    with pytest.raises(BackendError, match="MemoryMax") as caught:
        await machine.backend.start(workload)
    assert (caught.value.reason, isinstance(caught.value, BackendUnavailable)) == ("StartFailed", False)
    assert await machine.backend.list() == []
    await machine.launch()


async def test_workload_from_before_units_goes_on_and_is_removed_whole(machine: UnitsMachine, tmp_path: Path) -> None:
    await machine.close_agent()
    old = replace(machine.site.options(machine.owner), environment={"PATH": path_without("systemd-run", tmp_path)})
    agent = await RemoteBackend.launch(machine.site.device.command, old)
    try:
        assert (await agent.probe()).capabilities.supervision == "supervisor"
        workload = machine.workload()
        await agent.prepare(workload, ignore)
        handle = await agent.start(workload)
    finally:
        await agent.kill()
    await machine.open()
    assert (await machine.show(unit_of(handle), "LoadState"))["LoadState"] == "not-found"
    first = await machine.supervisor(handle)
    await machine.site.device.run("kill", "-9", str(first))
    await until_holds(lambda: replaced(machine, handle, first))
    assert await machine.inside(handle, "echo inside") == "inside"
    assert (await machine.backend.stats(handle)).memory_kib > 0
    await machine.backend.remove(handle)
    assert await machine.outside(f"find /sys/fs/cgroup -name 'longshore-{machine.owner}'") == ""
    assert await machine.backend.list() == []


def path_without(program: str, folder: Path) -> str:
    """A folder of links to all programs of this machine but one."""
    for place in os.environ["PATH"].split(":"):
        for path in Path(place).iterdir() if Path(place).is_dir() else ():
            if path.name != program and not (folder / path.name).is_symlink():
                (folder / path.name).symlink_to(path)
    return str(folder)


async def test_start_that_cannot_be_limited_leaves_nothing(machine: UnitsMachine) -> None:
    workload = machine.workload(resources=replace(LIMITS, cpu_set="4095"))
    await machine.backend.prepare(workload, ignore)
    with pytest.raises(BackendError) as caught:
        await machine.backend.start(workload)
    assert caught.value.reason == "StartFailed"
    assert await machine.backend.list() == []
    assert await machine.outside("find /sys/fs/cgroup -name 'longshore-*.scope'") == ""


async def test_what_fails_at_once_has_been_started_each_time(machine: UnitsMachine) -> None:
    """Its unit holds the process that starts it, too, which is not to be killed with what the workload leaves."""
    for _ in range(20):
        handle = await machine.launch("exit 3")
        assert (await machine.end_of(handle)).exit_code == 3
        await machine.backend.remove(handle)
