"""The bare-metal agent of an ordinary user: its bundles are in a sandbox too, and what takes root is refused."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from edge_agent.runtime.backend import Phase, TerminalSize, Unsupported
from edge_agent.runtime.model import Artifact, Mount, Port, Resources, Secret, Volume
from tests.contract.machine import await_lines, await_observed, has_ended, ignore, inside, launch
from tests.support.virtualenv_machine import VirtualenvSite, virtualenv_site
from tests.support.virtualenv_user import HOME, RUNTIME, USER, UserMachine

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-user"),
    pytest.mark.asyncio(loop_scope="module"),
]
POLITE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualenvSite]:
    async with virtualenv_site(tmp_path_factory.mktemp("site"), {}) as made:
        await UserMachine.prepare(made)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(site: VirtualenvSite) -> Artifact:
    return await site.bundle({"main.py": b"print('here')\n"})


@pytest_asyncio.fixture(loop_scope="module")
async def machine(site: VirtualenvSite) -> AsyncIterator[UserMachine]:
    async with UserMachine(site, f"owner-{next(site.numbers)}") as made:
        yield made


async def test_it_says_what_it_can_limit(machine: UserMachine) -> None:
    facts = await machine.backend.probe()
    able = facts.capabilities
    assert (facts.problem, able.isolation, able.limits_by) == ("", "bubblewrap", "rlimit")
    assert (able.cpu_limit, able.memory_limit, able.cpu_set, able.pids_limit) == (True, True, True, False)
    assert (able.mounts, able.volumes, able.secrets, able.devices) == (True, True, True, True)


async def test_bundle_runs_in_a_sandbox_without_any_rights(machine: UserMachine, artifact: Artifact) -> None:
    handle = await launch(machine, machine.site.workload(artifact, f"python main.py; id -u; {POLITE}"))
    assert await await_lines(machine.backend, handle, 2) == ["here", str(USER)]
    status = await inside(machine, handle, "grep -E '^(Cap|NoNewPrivs)' /proc/1/status /proc/self/status")
    assert {line.split()[1] for line in status.splitlines() if "CapBnd" not in line} == {"0" * 16, "1"}
    written = "for place in /usr /etc /app /opt /dev /; do touch $place/x 2>/dev/null && echo $place; done"
    hidden = f"ls -d {HOME}/* {RUNTIME} /root/* 2>/dev/null; {written}; ls /app/main.py"
    assert (await inside(machine, handle, hidden)).split() == ["/app/main.py"]
    assert "remote_backend" not in await inside(machine, handle, "cat /proc/[0-9]*/cmdline")


async def test_instance_is_adopted_counted_stopped_and_leaves_nothing(machine: UserMachine, artifact: Artifact) -> None:
    script = f"setsid sleep 86422 & echo ready; {POLITE}"
    handle = await launch(machine, machine.site.workload(artifact, script))
    await await_lines(machine.backend, handle, 1)
    await machine.restart_agent()
    assert [(seen.handle, seen.phase) for seen in await machine.backend.list()] == [(handle, Phase.RUNNING)]
    assert (await machine.backend.stats(handle)).memory_kib > 0
    session = await machine.backend.open_exec(handle, ["sh", "-c", "stty size"], TerminalSize(33, 111))
    assert (await session.read() or ("", b""))[1].strip() == b"33 111"
    await session.close()
    await machine.backend.stop(handle, 10)
    assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 0
    assert await machine.site.device.run("sh", "-c", "pgrep -fc '^sleep 86422' || true") == "0\n"
    await machine.backend.remove(handle)
    assert await machine.site.device.run("ls", f"{HOME}/{machine.owner}/instances") == ""


async def test_volumes_secrets_and_mounts_are_seen(machine: UserMachine, artifact: Artifact) -> None:
    workload = replace(
        machine.site.workload(artifact, POLITE),
        volumes=(Volume("data", "/data"),),
        secrets=(Secret("token", "/run/secrets/token", b"hush"),),
        mounts=(Mount(HOME, "/in"),),
    )
    first = await launch(machine, workload)
    said = "echo kept > /data/file; cat /run/secrets/token; ls /in/authority.crt; touch /in/x 2>/dev/null || echo no"
    assert (await inside(machine, first, said)).split() == ["hush/in/authority.crt", "no"]
    await machine.backend.remove(first)
    assert await machine.site.device.run("find", f"{RUNTIME}/longshore", "-path", "*secrets*", "-type", "f") == ""
    second = await launch(machine, replace(workload, revision=2))
    assert await inside(machine, second, "cat /data/file") == "kept"


async def test_limits_that_it_can_keep_are_kept(machine: UserMachine, artifact: Artifact) -> None:
    hungry = ("python", "-c", "b = bytearray(300 * 2**20); print(len(b))")
    limits = Resources(memory_bytes=64 * 2**20, cpu_set="0")
    plain = machine.site.workload(artifact, "")
    handle = await launch(machine, replace(plain, entrypoint=hungry, resources=limits))
    assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 1
    pinned = await launch(machine, replace(machine.site.workload(artifact, POLITE), resources=limits))
    assert await inside(machine, pinned, "nproc") == "1"


@pytest.mark.parametrize("name", ["host-pid", "host-ipc", "writable-root"])
async def test_what_takes_no_root_is_loosened_by_its_name(machine: UserMachine, artifact: Artifact, name: str) -> None:
    script = f"sleep 86423 & {POLITE}"
    handle = await launch(machine, replace(machine.site.workload(artifact, script), allow=frozenset({name})))
    shared = [Path(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc")]
    found = await inside(machine, handle, f"readlink {shared[0]} {shared[1]}; touch main.py && echo written")
    device = (await machine.site.device.run("readlink", *map(str, shared))).split()
    pid, ipc, *written = found.split()
    assert (pid == device[0], ipc == device[1], "written" in written) == (
        name == "host-pid", name == "host-ipc", name == "writable-root",
    )  # fmt: skip
    await machine.backend.stop(handle, 10)
    assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 0
    assert await machine.site.device.run("sh", "-c", "pgrep -fc '^sleep 86423' || true") == "0\n"


async def test_what_takes_root_is_refused_by_name(machine: UserMachine, artifact: Artifact) -> None:
    plain = machine.site.workload(artifact, POLITE)
    for name in ("root", "CAP_SYS_NICE"):
        with pytest.raises(Unsupported, match=f"agent is not root and cannot give {name}"):
            await machine.backend.prepare(replace(plain, allow=frozenset({name})), ignore)
    with pytest.raises(Unsupported, match="no limit of processes"):
        await machine.backend.prepare(replace(plain, resources=Resources(pids=10)), ignore)
    with pytest.raises(Unsupported, match=r"port 80 \(http\) is for root"):
        await machine.backend.prepare(replace(plain, ports=(Port("http", 80, 80),)), ignore)


async def test_without_a_sandbox_it_runs_what_allows_that_by_name_and_that_gains_no_rights(
    machine: UserMachine, artifact: Artifact
) -> None:
    plain = machine.site.workload(artifact, f"sleep 86424 & grep NoNewPrivs /proc/self/status; id -u; {POLITE}")
    async with machine.no_sandbox():
        with pytest.raises(
            Unsupported, match=r"no sandbox .*or name host-ipc, host-pid, writable-root in deploy.allow"
        ):
            await machine.backend.prepare(plain, ignore)
        handle = await launch(machine, replace(plain, allow=frozenset({"host-ipc", "host-pid", "writable-root"})))
        assert await await_lines(machine.backend, handle, 2) == ["NoNewPrivs:\t1", str(USER)]
        assert await inside(machine, handle, "grep NoNewPrivs /proc/self/status") == "NoNewPrivs:\t1"
        await machine.backend.stop(handle, 10)
        assert (await await_observed(machine.backend, handle, has_ended)).exit_code == 0
        assert await machine.site.device.run("sh", "-c", "pgrep -fc '^sleep 86424' || true") == "0\n"
