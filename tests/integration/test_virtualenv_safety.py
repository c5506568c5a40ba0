"""What a bundle's process may do on the device: nothing that its spec does not name; volumes, secrets and shares, each
seen from inside."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from baremetal_agent.virtualenv.installer import Installer
from edge_agent.runtime.backend import BackendError, Handle, Unsupported
from edge_agent.runtime.model import Mount, Port, Resources, Secret, Volume
from tests.contract.machine import ignore
from tests.integration.virtualenv_fixtures import LocalMachine, artifact, machine, shop
from tests.support.async_waiting import until

__all__ = ["artifact", "machine", "shop"]

pytestmark = [
    pytest.mark.podman,
    pytest.mark.xdist_group("virtualenv-local"),
    pytest.mark.asyncio(loop_scope="module"),
]


async def allowed(machine: LocalMachine, *names: str) -> Handle:
    return await machine.launch(machine.workload(allow=frozenset(names)))


async def test_nothing_is_allowed_by_default(machine: LocalMachine) -> None:
    handle = await allowed(machine)
    status = await machine.status(handle)
    (uid,) = set(status["Uid"].split())
    assert int(uid) >= 1_000_000
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Groups"]) == ("1", "")
    assert await machine.inside(handle, "id -u; id -un") == f"{uid}\nlongshore"


async def test_system_is_read_only_and_scratch_is_its_own(machine: LocalMachine) -> None:
    handle = await allowed(machine)
    places = "/ /usr /etc /app /opt/venv /opt /var /run /sys"
    script = f"for place in {places}; do touch $place/x 2>/dev/null && echo $place; done; true"
    assert await machine.inside(handle, script) == ""
    scratch = "for place in /tmp /var/tmp /dev/shm; do echo x > $place/x && echo $place; done"
    assert (await machine.inside(handle, scratch)).split() == ["/tmp", "/var/tmp", "/dev/shm"]
    assert not Path("/tmp/x").exists()


async def test_only_its_own_files_and_processes_are_seen(machine: LocalMachine) -> None:
    handle = await allowed(machine)
    hidden = f"ls -d {machine.state} /root /home/* /var/lib /boot /mnt 2>/dev/null; true"
    assert await machine.inside(handle, hidden) == ""
    assert await machine.inside(handle, "cat /etc/shadow 2>&1 >/dev/null | grep -c denied") == "1"
    processes = (await machine.inside(handle, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).lower()
    assert "pytest" not in processes
    assert "sleep 1000" in processes
    assert await machine.inside(handle, "ls /dev") == "\n".join(
        [
            "core",
            "fd",
            "full",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "urandom",
            "zero",
        ]
    )


async def test_program_finds_its_files_and_packages_where_an_image_has_them(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload(entrypoint=("python", "main.py")))
    assert (await machine.end_of(handle)).exit_code == 0
    assert await machine.lines(handle) == ["the answer is 42"]
    running = await allowed(machine)
    assert await machine.inside(running, "pwd; cat data/one.txt; which python") == "/app\n1/opt/venv/bin/python"


async def test_nothing_that_is_open_here_is_open_in_a_workload(machine: LocalMachine) -> None:
    handle = await allowed(machine)
    opened = Path(f"/proc/{machine.started(handle)['pid']}/fd").iterdir()
    assert sorted(path.name for path in opened if path.name != "10") == ["0", "1", "2"]


async def test_two_deployments_are_two_users_and_one_keeps_its_own(machine: LocalMachine) -> None:
    workload = machine.workload()
    first, other = await machine.launch(workload), await allowed(machine)
    uids = [(await machine.status(handle))["Uid"] for handle in (first, other)]
    assert uids[0] != uids[1]
    await machine.backend.remove(first)
    second = await machine.launch(replace(workload, revision=2))
    assert (await machine.status(second))["Uid"] == uids[0]


async def test_each_default_is_loosened_by_its_name(machine: LocalMachine) -> None:
    root = await allowed(machine, "root")
    status = await machine.status(root)
    assert status["Uid"].split() == ["0"] * 4
    assert status["CapEff"] == "0" * 16
    nice = await machine.status(await allowed(machine, "CAP_SYS_NICE"))
    assert {nice[name] for name in ("CapEff", "CapAmb", "CapBnd")} == {f"{1 << 23:016x}"}
    writable = await allowed(machine, "writable-root")
    assert await machine.inside(writable, "echo changed > main.py && cat main.py") == "changed"
    assert await machine.inside(root, "head -n1 main.py") == "import answers"
    with pytest.raises(Unsupported, match="new-privileges"):
        await allowed(machine, "new-privileges")


async def test_namespaces_of_the_device_are_shared_only_by_name(machine: LocalMachine) -> None:
    own, shared = await allowed(machine), await allowed(machine, "host-pid", "host-ipc")
    for kind in ("pid", "ipc"):
        device, own_one, shared_one = (
            Path(f"/proc/{pid}/ns/{kind}").readlink()
            for pid in ("self", machine.started(own)["pid"], machine.started(shared)["pid"])
        )
        assert own_one != device
        assert shared_one == device
    # Not before it can hear it: a TERM in its first millisecond ends the shell that is to take it.
    pid = machine.started(shared)["pid"]
    await until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text() != "")
    await machine.backend.stop(shared, 5)
    assert (await machine.end_of(shared)).exit_code == 0


async def test_low_port_can_be_listened_at(machine: LocalMachine) -> None:
    handle = await machine.launch(machine.workload(ports=(Port("http", 81, 81),)))
    status = await machine.status(handle)
    assert int(status["CapEff"], 16) == 1 << 10


async def test_volume_is_the_users_own_and_outlives_instance_and_revision(machine: LocalMachine) -> None:
    workload = machine.workload(volumes=(Volume("data", "/data"),))
    first = await machine.launch(workload)
    assert await machine.inside(first, "echo kept > /data/file && cat /data/file") == "kept"
    await machine.backend.remove(first)
    second = await machine.launch(replace(workload, revision=2, volumes=(Volume("data", "/data", read_only=True),)))
    assert "Read-only" in await machine.inside(second, "echo x > /data/file; true")
    assert await machine.inside(second, "cat /data/file") == "kept"
    await machine.backend.remove(second)
    await machine.backend.prune(frozenset([machine.artifact.digest]))
    await machine.backend.forget("another")
    third = await machine.launch(workload)
    assert await machine.inside(third, "cat /data/file; echo more >> /data/file; wc -l < /data/file") == "kept\n2"
    await machine.backend.remove(third)
    for _ in range(2):
        await machine.backend.forget(workload.deployment_id)
    assert await machine.inside(await machine.launch(workload), "ls /data") == ""


async def test_volume_follows_its_deployment_to_another_user(machine: LocalMachine) -> None:
    workload = machine.workload(volumes=(Volume("data", "/data"),))
    first = await machine.launch(workload)
    await machine.inside(first, "umask 077; mkdir /data/own && echo kept > /data/own/file && ln -s /etc/passwd /data/l")
    uid = (await machine.status(first))["Uid"]
    await machine.backend.remove(first)
    (machine.state / "users.json").unlink()
    await allowed(machine)
    second = await machine.launch(workload)
    assert (await machine.status(second))["Uid"] != uid
    assert await machine.inside(second, "cat /data/own/file; echo more >> /data/own/file; stat -c %U /data") == (
        "kept\nlongshore"
    )
    assert Path("/etc/passwd").stat().st_uid == 0


async def test_mounts_are_seen_as_the_spec_says(machine: LocalMachine, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "shared/file").write_text("outside")
    (tmp_path / "shared/file").chmod(0o644)
    mounts = (
        Mount(str(tmp_path / "shared"), "/in"),
        Mount(str(tmp_path / "shared"), "/usr/share/out", read_only=False),
    )
    handle = await machine.launch(machine.workload(mounts=mounts))
    assert await machine.inside(handle, "cat /in/file; touch /in/new 2>/dev/null || echo no") == "outsideno"
    assert await machine.inside(handle, "echo x > /usr/share/out/new && ls /usr/share/out; ls -d /usr/share/doc") == (
        "file\nnew\n/usr/share/doc"
    )
    missing = await machine.refusal(machine.workload(mounts=(Mount("/nowhere/at/all", "/in"),)))
    assert (missing.reason, missing.retryable) == ("MountSourceMissing", False)


async def test_secret_is_a_file_that_nobody_else_can_read_and_on_no_disk(machine: LocalMachine) -> None:
    secret = Secret("token", "/run/secrets/token", b"hush \x00 now")
    handle = await machine.launch(machine.workload(secrets=(secret,)))
    assert (await machine.backend.exec(handle, ["cat", "/run/secrets/token"], 20)).output == secret.content
    owner, mode = (await machine.inside(handle, "stat -c '%U %a' /run/secrets/token")).split()
    assert (owner, mode) == ("longshore", "400")
    assert "Read-only" in await machine.inside(handle, "chmod 600 /run/secrets/token 2>&1; true")
    on_disk = [path for path in machine.state.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
    assert on_disk == []
    (kept,) = Path("/run/longshore").glob(f"secrets-{machine.owner}/*/*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
    await machine.backend.remove(handle)
    assert not kept.exists()


async def test_share_of_the_processor_is_what_a_program_sees(machine: LocalMachine) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    handles = [await machine.launch(machine.workload(resources=Resources(cpu_millis=500))) for _ in range(2)]
    seen = [(await machine.status(handle))["Cpus_allowed_list"] for handle in handles]
    assert len(set(seen)) == 2, "the second one gets the core that the first one does not have"
    assert await machine.inside(handles[0], "echo $OMP_NUM_THREADS $NPROC; nproc") == "1 1\n1"
    own = machine.workload(resources=Resources(cpu_set="1"), environment=(("OMP_NUM_THREADS", "7"),))
    pinned = await machine.launch(own)
    assert (await machine.status(pinned))["Cpus_allowed_list"] == "1"
    assert await machine.inside(pinned, "echo $OMP_NUM_THREADS") == "7"


async def test_limits_hold(machine: LocalMachine) -> None:
    limits = Resources(memory_bytes=64 * 2**20, pids=20, shared_memory_bytes=8 * 2**20, cpu_millis=200)
    handle = await machine.launch(machine.workload(resources=limits))
    assert "size=8192k" in await machine.inside(handle, "grep ' /dev/shm ' /proc/mounts")
    forks = "for n in $(seq 40); do sleep 5 & done 2>&1"
    assert "ork" in await machine.inside(handle, forks)
    busy = "import time\nend = time.time() + 1\nwhile time.time() < end: pass\nprint(time.process_time())"
    result = await machine.backend.exec(handle, ["python", "-c", busy], 60)
    assert float(result.output) < 0.5
    stats = await machine.backend.stats(handle)
    assert stats.cpu_millis > 100
    assert stats.memory_peak_kib >= stats.memory_kib > 0


async def test_memory_that_is_too_much_is_told_as_such(machine: LocalMachine) -> None:
    hungry = ("python", "-c", "b = bytearray(200 * 2**20); print(len(b))")
    handle = await machine.launch(machine.workload(entrypoint=hungry, resources=Resources(memory_bytes=64 * 2**20)))
    seen = await machine.end_of(handle)
    assert (seen.exit_code, seen.exit_reason) == (137, "OutOfMemory")


async def test_program_that_cannot_be_run_is_told_beforehand(machine: LocalMachine) -> None:
    missing = await machine.refusal(machine.workload(entrypoint=("./nonesuch",)))
    assert (missing.reason, missing.retryable) == ("CommandNotFound", False)
    plain = await machine.refusal(machine.workload(entrypoint=("./main.py",)))
    assert (plain.reason, plain.retryable) == ("CommandNotExecutable", False)


async def test_nothing_of_a_start_that_fails_is_left(machine: LocalMachine) -> None:
    secret = Secret("token", "/proc/1/token", b"hush")
    error = await machine.refusal(machine.workload(secrets=(secret,)))
    assert error.reason == "StartFailed"
    assert "bwrap" in error.message
    assert list((machine.state / "instances").iterdir()) == []
    assert list(Path("/run/longshore").glob(f"secrets-{machine.owner}/*")) == []
    assert list(Path("/sys/fs/cgroup").glob(f"*/longshore-{machine.owner}/*")) == []


async def test_what_is_left_of_a_killed_agents_workloads_is_tidied(machine: LocalMachine) -> None:
    secret = Secret("token", "/run/secrets/token", b"hush")
    handle = await machine.launch(machine.workload(secrets=(secret,)))
    folder = Path("/run/longshore", f"secrets-{machine.owner}", "left")
    folder.mkdir()
    await machine.backend.prune(frozenset())
    assert not folder.exists()
    assert await machine.inside(handle, "cat /run/secrets/token") == "hush"


async def test_what_is_started_while_bundles_are_pruned_keeps_its_user(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, prune = machine.workload(), Installer.prune

    async def prune_and_start(installer: Installer, keep: frozenset[str]) -> None:
        await prune(installer, keep)
        await machine.launch(workload)

    with monkeypatch.context() as patch:
        patch.setattr(Installer, "prune", prune_and_start)
        await machine.backend.prune(frozenset([machine.artifact.digest]))
    assert workload.deployment_id in json.loads((machine.state / "users.json").read_text())


async def test_bundle_of_what_runs_is_not_pruned(machine: LocalMachine) -> None:
    handle = await allowed(machine)
    await machine.backend.prune(frozenset())
    assert await machine.inside(handle, "ls main.py && python -c 'import answers'") == "main.py"
    await machine.backend.remove(handle)
    await machine.backend.prune(frozenset())
    with pytest.raises(BackendError) as caught:
        await machine.backend.start(machine.workload())
    assert caught.value.reason == "NotPrepared"
    await machine.backend.prepare(machine.workload(), ignore)
