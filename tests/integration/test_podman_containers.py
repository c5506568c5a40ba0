"""What a workload becomes in Podman: its limits, rights, ports, logs and image, each seen from the outside."""

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.runtime.backend import BackendError, LogQuery
from edge_agent.runtime.model import Artifact, Mount, Port, Resources
from tests.contract.machine import await_lines, await_observed, find, has_ended, ignore, inside, launch
from tests.integration.podman_fixtures import image, machine, site
from tests.support.long_logs import breaks, read_in_parts, writes_in_parts
from tests.support.podman_machine import PodmanMachine, PodmanSite, until
from tests.support.remote_backend import RemoteBackend

__all__ = ["image", "machine", "site"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("podman-containers"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
MEBIBYTE = 1024 * 1024
# linux/capability.h
CAP_SYS_RESOURCE = 24


async def answers(machine: PodmanMachine, address: tuple[str, int]) -> str:
    """What the device itself gets by HTTP from there; "nothing" where the connection is refused or closed."""
    host, port = address
    fetch = f"curl -s -m 5 http://{host}:{port}/hello || echo nothing"
    return (await machine.site.device.run("sh", "-c", fetch)).strip()


async def test_port_answers_only_while_something_listens_inside(machine: PodmanMachine, image: Artifact) -> None:
    serve = f"echo hi > /tmp/hello; while [ ! -e /tmp/go ]; do sleep 0.05; done; httpd -p 8080 -h /tmp; {POLITE}"
    handle = await launch(machine, machine.site.workload(image, serve, ports=(Port("http", 8080),)))
    seen = await find(machine.backend, handle)
    assert seen is not None
    address = dict(seen.addresses)["http"]
    assert await answers(machine, address) == "nothing"
    await inside(machine, handle, "touch /tmp/go")

    async def served() -> bool:
        return await answers(machine, address) == "hi"

    await until(served)
    assert await answers(machine, (machine.site.device.address, address[1])) == "hi"


async def test_rules_for_a_port_are_gone_once_its_container_is_stopped(machine: PodmanMachine, image: Artifact) -> None:
    """Else the monitor would take them down while those of the next instance at the same port are made."""
    # Whichever of both the network's program there writes them by.
    rules = ["sh", "-c", "iptables -t nat -S 2>&1; nft list ruleset 2>&1 || true"]
    for _ in range(3):
        workload = machine.site.workload(image, POLITE, ports=(Port("http", 8080, host_port=18080),))
        handle = await launch(machine, workload)
        assert "18080" in await machine.site.device.run(*rules)
        await machine.backend.stop(handle, 10)
        assert "18080" not in await machine.site.device.run(*rules)
        await machine.backend.remove(handle)


async def test_limits_hold(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, POLITE)
    limits = Resources(cpu_millis=250, memory_bytes=64 * MEBIBYTE, pids=40)
    handle = await launch(machine, replace(workload, resources=limits))
    pid = await machine.inspect(handle, "State.Pid")
    script = f"cat /proc/{pid}/cgroup"
    folders = dict(line.split(":")[1:] for line in (await machine.site.device.run("sh", "-c", script)).splitlines())
    if "memory" in folders:
        paths = [f"memory{folders['memory']}/memory.limit_in_bytes", f"pids{folders['pids']}/pids.max"]
        paths += [f"cpu{folders['cpu']}/cpu.cfs_quota_us"]
        expected = [str(64 * MEBIBYTE), "40", "25000"]
    else:
        paths = [f"{folders['']}/{name}" for name in ("memory.max", "pids.max", "cpu.max")]
        expected = [str(64 * MEBIBYTE), "40", "25000 100000"]
    for path, value in zip(paths, expected, strict=True):
        assert (await machine.site.device.run("cat", f"/sys/fs/cgroup/{path}")).strip() == value


async def test_agent_that_may_not_raise_limits_starts_instances_within_its_own(
    site: PodmanSite, image: Artifact
) -> None:
    """Neither CAP_SYS_RESOURCE nor systemd, which are what Podman's own settings take for granted."""

    def restricted(argv: Sequence[str]) -> list[str]:
        return ["prlimit", "--nofile=2048:2048", "setpriv", "--bounding-set=-sys_resource", *site.command(argv)]

    machine = PodmanMachine(site, "restricted")
    agent = await RemoteBackend.launch(restricted, site.options(machine.owner))
    try:
        workload = site.workload(image, POLITE)
        await agent.prepare(workload, ignore)
        handle = await agent.start(workload)
        limits = (await agent.exec(handle, ["cat", "/proc/1/limits"], 20)).output.decode()
        assert re.search(r"^Max open files +2048 +2048 ", limits, re.MULTILINE)
        (service,) = await machine.service_pids()
        status = await site.device.run("cat", f"/proc/{service}/status")
        rights = re.search(r"^CapBnd:\s+(\w+)", status, re.MULTILINE)
        assert rights is not None
        assert not int(rights[1], 16) & 1 << CAP_SYS_RESOURCE
        assert "systemd" not in await site.device.run("cat", "/proc/1/comm")
        await agent.remove(handle)
    finally:
        await agent.close()


async def test_program_has_no_rights_that_it_does_not_need(machine: PodmanMachine, image: Artifact) -> None:
    handle = await launch(machine, machine.site.workload(image, POLITE))
    status = await inside(machine, handle, "cat /proc/1/status")
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0


async def test_low_port_can_be_listened_on(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, f"httpd -p 80 -h /tmp; echo started; {POLITE}", ports=(Port("http", 80),))
    handle = await launch(machine, workload)
    assert await await_lines(machine.backend, handle, 1) == ["started"]


async def test_environment_folder_and_mounts_are_those_of_the_spec(machine: PodmanMachine, image: Artifact) -> None:
    source = machine.site.folder / "given"
    source.mkdir(exist_ok=True)
    (source / "file").write_text("content")
    workload = replace(
        machine.site.workload(image, POLITE),
        environment=(("GREETING", "hello you"),),
        working_dir="/etc",
        mounts=(Mount(str(source), "/given"),),
    )
    handle = await launch(machine, workload)
    assert await inside(machine, handle, "echo $GREETING; cat /given/file; readlink /proc/1/cwd") == (
        "hello you\ncontent/etc"
    )
    assert "Read-only" in await inside(machine, handle, "echo x > /given/file")


async def test_mount_whose_source_is_missing_is_a_final_error(machine: PodmanMachine, image: Artifact) -> None:
    workload = replace(machine.site.workload(image, POLITE), mounts=(Mount("/no/such/folder", "/given"),))
    with pytest.raises(BackendError) as caught:
        await launch(machine, workload)
    assert (caught.value.reason, caught.value.retryable) == ("MountSourceMissing", False)
    assert await machine.backend.list() == []


async def test_image_s_own_command_runs_where_the_spec_names_none(machine: PodmanMachine, image: Artifact) -> None:
    handle = await launch(machine, replace(machine.site.workload(image, ""), entrypoint=()))
    assert "sleep 1000000" in (await inside(machine, handle, "tr '\\0' ' ' < /proc/1/cmdline || cat /proc/1/cmdline"))


async def test_program_that_takes_too_much_memory_is_said_to_have(machine: PodmanMachine, image: Artifact) -> None:
    workload = machine.site.workload(image, "exec dd if=/dev/zero of=/dev/null bs=200M count=1")
    handle = await launch(machine, replace(workload, resources=Resources(memory_bytes=16 * MEBIBYTE)))
    seen = await await_observed(machine.backend, handle, has_ended)
    assert (seen.exit_code, seen.exit_reason) == (137, "OutOfMemory")


async def test_follower_loses_no_line_when_the_log_is_replaced(machine: PodmanMachine, image: Artifact) -> None:
    handle = await launch(machine, machine.site.workload(image, writes_in_parts() + POLITE))
    numbers = await read_in_parts(machine, handle, machine.backend.logs(handle, LogQuery(follow=True)))
    assert (numbers[0], breaks(numbers)) == (1, [])
    log = Path(await machine.inspect(handle, "HostConfig.LogConfig.Path"))
    assert int(await machine.site.device.run("stat", "-c", "%s", str(log))) < 11 * MEBIBYTE


async def test_long_and_unfinished_lines_are_joined(machine: PodmanMachine, image: Artifact) -> None:
    long = "y" * 30000
    script = f"echo {long[:100]}$(seq -s '' 1 6000); printf unfinished; sleep 0.3; echo ' business'; {POLITE}"
    handle = await launch(machine, machine.site.workload(image, script))
    first, second = await await_lines(machine.backend, handle, 2)
    assert first == long[:100] + "".join(str(n) for n in range(1, 6001))
    assert second == "unfinished business"


async def test_image_that_is_not_for_what_it_says_is_refused(machine: PodmanMachine, site: PodmanSite) -> None:
    artifact = replace(await site.image(architecture="s390x"), platform="linux/amd64")
    with pytest.raises(BackendError) as caught:
        await machine.backend.prepare(site.workload(artifact, POLITE), ignore)
    assert (caught.value.reason, caught.value.retryable) == ("WrongArchitecture", False)


async def test_wrong_credentials_are_a_retryable_error(machine: PodmanMachine, site: PodmanSite) -> None:
    workload = site.workload(await site.image(), POLITE)
    options = replace(site.options("stranger"), password="wrong")
    stranger = await RemoteBackend.launch(site.command, options)
    try:
        with pytest.raises(BackendError) as caught:
            await stranger.prepare(workload, ignore)
    finally:
        await stranger.close()
    assert (caught.value.reason, caught.value.retryable) == ("ImagePullDenied", True)


async def test_service_that_others_run_is_used_and_left_running(site: PodmanSite, image: Artifact) -> None:
    url = "unix:///run/others.sock"
    service = site.device.popen(["podman", "system", "service", "--time=0", url])

    async def answers() -> bool:
        return "yes" in await site.device.run("sh", "-c", "test -S /run/others.sock && echo yes || echo no")

    await until(answers)
    agent = await RemoteBackend.launch(site.command, replace(site.options("guest"), url=url))
    try:
        workload = site.workload(image, POLITE)
        await agent.prepare(workload, ignore)
        handle = await agent.start(workload)
        assert (await agent.exec(handle, ["echo", "hi"], 10)).output == b"hi\n"
        await agent.remove(handle)
    finally:
        await agent.close()
    assert service.poll() is None
    os.killpg(service.pid, signal.SIGKILL)
    service.wait()
    late = await RemoteBackend.launch(site.command, replace(site.options("guest"), url=url))
    try:
        facts = await late.probe()
    finally:
        await late.close()
    assert facts.problem.startswith("PodmanUnavailable: ")
