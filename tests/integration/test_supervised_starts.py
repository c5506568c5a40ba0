"""Starts that fail on the way leave nothing that runs: for want of disk, of the supervisor, of the agent's patience."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from baremetal_agent.supervisor.launching import SANDBOX_FD, STATUS_FD
from baremetal_agent.virtualenv import supervision
from baremetal_agent.virtualenv.confinement import Confinement
from baremetal_agent.virtualenv.folders import boot_id
from baremetal_agent.virtualenv.forking import Stem, python
from baremetal_agent.virtualenv.instances import Instance, Instances
from baremetal_agent.virtualenv.launcher import Launch
from baremetal_agent.virtualenv.layout import Layout
from baremetal_agent.virtualenv.placing import own_groups
from baremetal_agent.virtualenv.starting import MARKER
from baremetal_agent.virtualenv.supervision import Supervision
from edge_agent.runtime.backend import BackendError
from tests.support.async_waiting import until
from tests.support.small_disk import small_disk

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("virtualenv-local")]

NUMBERS = itertools.count(1)
# Something of an agent's own. A machine may not let even root be killed later than others: so it is sooner.
AS_A_SERVICE = ("/bin/sh", "-c", 'umask 077; echo 500 > /proc/self/oom_score_adj; exec "$0" "$@"')
SANDBOX = ("--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc")


def running(mark: str) -> list[int]:
    """Processes that were started with this variable, or have it on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            if mark.encode() in said and (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(folder.name))
    return found


def supervised(folder: Path, mark: str, *words: str, **fields: str) -> str:
    """What a supervisor reports of the launch of these words in its folder."""
    for pipe in ("out", "err"):
        os.mkfifo(folder / pipe)
    said = [*fields.items(), *(("arg", word) for word in words), ("env", f"{MARKER}={mark}"), ("log_bytes", "1000000")]
    said += [("sandbox", option) for option in SANDBOX]
    (folder / "launch").write_bytes(b"".join(f"{key}={value}\0".encode() for key, value in said))
    reading, writing = os.pipe()
    with (folder / "lock").open("w") as lock:
        argv = [*AS_A_SERVICE, *python("main", "main"), str(folder), str(lock.fileno()), str(writing)]
        subprocess.run(argv, pass_fds=(lock.fileno(), writing), check=True)
    os.close(writing)
    with os.fdopen(reading) as report:
        return report.read().partition("\n")[2]


@pytest.mark.parametrize("sandboxed", [False, True], ids=["bare", "sandboxed"])
async def test_start_that_cannot_be_noted_leaves_nothing_that_runs(tmp_path: Path, sandboxed: bool) -> None:
    mark = f"unnoted-{os.getpid()}-{next(NUMBERS)}"
    # Where its note is to be written there is a folder, which is in the way even of root.
    (tmp_path / ".started").mkdir()
    words = ["/bin/sh", "-c", "setsid sleep 1000 & sleep 1000"]
    fields = {}
    if sandboxed:
        words = ["/usr/bin/bwrap", "--json-status-fd", str(STATUS_FD), "--args", str(SANDBOX_FD), "--", *words]
        fields = {"sandboxed": "1", "own_pids": "1"}
    report = await asyncio.to_thread(supervised, tmp_path, mark, *words, **fields)
    assert "its start cannot be noted: [Errno 21]" in report
    await until(lambda: not running(mark))


async def test_log_that_takes_nothing_and_cannot_be_cut_holds_up_nothing(tmp_path: Path) -> None:
    # As on a disk that has become read-only: whatever is done to it fails.
    (tmp_path / "log").symlink_to("/dev/full")
    mark = f"unlogged-{os.getpid()}-{next(NUMBERS)}"
    report = await asyncio.to_thread(
        supervised, tmp_path, mark, "/bin/sh", "-c", "echo one; sleep 0.2; echo two; exit 5"
    )
    assert report == "ok"
    await until((tmp_path / "ended").exists)
    assert json.loads((tmp_path / "ended").read_text())["code"] == 5


async def test_how_a_workload_ended_is_noted_on_a_disk_that_has_become_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        folder, go = disk.path / "instance", tmp_path / "go"
        folder.mkdir()
        words = ("/bin/sh", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done; exit 5")
        assert await asyncio.to_thread(supervised, folder, "full", *words) == "ok"
        disk.fill()
        go.touch()
        await until((folder / "ended").exists)
        assert json.loads((folder / "ended").read_text())["code"] == 5


async def test_workload_has_neither_the_umask_of_the_agent_nor_its_claim_to_memory(tmp_path: Path) -> None:
    script = "umask; cat /proc/self/oom_score_adj"
    report = await asyncio.to_thread(supervised, tmp_path, "claims", "/bin/sh", "-c", script)
    assert report == "ok"
    await until((tmp_path / "ended").exists)
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == ["0022", "0"]


async def test_limit_that_the_kernel_refuses_is_told_and_nothing_runs(tmp_path: Path) -> None:
    report = await asyncio.to_thread(supervised, tmp_path, "limits", "/bin/sleep", "1000", rlimit="99:1")
    assert report == "invalid resource specified"
    assert not (tmp_path / "started").exists()


@pytest.fixture
def instances(tmp_path: Path) -> Instances:
    return Instances(tmp_path / "instances", "test")


@pytest.fixture
def watcher(instances: Instances) -> Iterator[Supervision]:
    made = Supervision(instances, boot_id(), own_groups())
    yield made
    made.close()


def launch(instances: Instances) -> Launch:
    """Of an instance whose folder is there."""
    name = f"start-{os.getpid()}-{next(NUMBERS)}"
    instance = Instance(name, "test", "d", 1, "sha256:1", "d", boot_id(), "supervisor", cgroup=f"longshore-test/{name}")
    instances.create(instance)
    layout = Layout(("/bin/sleep", "1000"), ((MARKER, name),), "/", ())
    return Launch(instance, layout, Confinement())


async def test_start_of_which_nothing_is_heard_in_time_leaves_nothing_that_runs(
    instances: Instances, watcher: Supervision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "START_SECONDS", 2.0)
    made = launch(instances)
    folder = instances.path(made.instance.id)
    # Whoever opens a pipe to write waits for somebody who reads.
    os.mkfifo(folder / "status")
    with pytest.raises(BackendError, match="nothing is heard of it"):
        await watcher.start(made)
    await watcher.clear(made.instance)
    assert running(str(folder)) == []
    assert list(Path("/sys/fs/cgroup").glob(f"*/{made.instance.cgroup}")) == []


@pytest.mark.parametrize("grouped", [True, False], ids=["in its groups", "in no group"])
async def test_start_whose_supervisor_was_killed_before_it_was_noted_is_cleared(
    instances: Instances, watcher: Supervision, grouped: bool
) -> None:
    made = launch(instances)
    started = await watcher.start(made)
    if not grouped:
        for procs in Path("/sys/fs/cgroup").glob("*/cgroup.procs"):
            for pid in (started.pid, started.init):
                procs.write_text(str(pid))
    supervisor = instances.supervisor(made.instance)
    os.kill(supervisor, signal.SIGKILL)
    await until(lambda: not instances.supervisor(made.instance))
    (instances.path(made.instance.id) / "started").unlink()
    assert started.pid in running(made.instance.id)
    await watcher.clear(made.instance)
    assert running(made.instance.id) == []
    assert list(Path("/sys/fs/cgroup").glob(f"*/{made.instance.cgroup}")) == []


def stems() -> list[int]:
    """Processes of ours from which supervisors are forked."""
    return [pid for pid in running("supervisor.stem") if parent(pid) == os.getpid()]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_supervisor_is_known_by_its_folder_and_outlives_the_one_that_it_was_forked_from(
    instances: Instances, watcher: Supervision
) -> None:
    made = launch(instances)
    await watcher.start(made)
    (stem,) = stems()
    watcher.close()
    await until(lambda: stem not in running("supervisor.stem"))
    supervisor = instances.supervisor(made.instance)
    assert running(str(instances.path(made.instance.id))) == [supervisor]
    assert await watcher.attend(made.instance) is None
    await watcher.kill(made.instance)
    await until(lambda: not instances.supervisor(made.instance))
    ended = await watcher.attend(made.instance)
    assert ended is not None
    assert ended.code == 137
    await watcher.clear(made.instance)


async def test_starts_go_on_where_the_one_to_fork_from_was_killed(instances: Instances, watcher: Supervision) -> None:
    await watcher.means()
    (stem,) = stems()
    os.kill(stem, signal.SIGKILL)
    await until(lambda: not stems())
    for _ in range(2):
        made = launch(instances)
        started = await watcher.start(made)
        assert started.pid in running(made.instance.id)
        await watcher.kill(made.instance)
        await watcher.clear(made.instance)


async def test_starts_go_on_after_the_one_to_fork_from_has_hung(
    instances: Instances, watcher: Supervision, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watcher.means()
    (stem,) = stems()
    os.kill(stem, signal.SIGSTOP)
    failing = launch(instances)
    with monkeypatch.context() as patch:
        patch.setattr(supervision, "START_SECONDS", 1.0)
        with pytest.raises(BackendError, match="nothing is heard of it"):
            await watcher.start(failing)
    await watcher.clear(failing.instance)
    assert not stems()
    made = launch(instances)
    started = await watcher.start(made)
    assert running(failing.instance.id) == []
    assert started.pid in running(made.instance.id)
    await watcher.kill(made.instance)
    await watcher.clear(made.instance)


async def test_nothing_runs_where_whoever_asked_for_it_has_gone_before_it_was_described(tmp_path: Path) -> None:
    stem = Stem()
    reading, writing = os.pipe()
    waiting, go = os.pipe()
    with (tmp_path / "lock").open("w") as lock:
        assert stem.fork(tmp_path, [], (lock.fileno(), writing, waiting))
    os.close(writing)
    os.close(waiting)
    with os.fdopen(reading) as report:
        supervisor = await asyncio.to_thread(report.readline)
        assert int(supervisor) in running(str(tmp_path))
        os.close(go)
        assert await asyncio.to_thread(report.read) == ""
    await until(lambda: not running(str(tmp_path)))
    stem.close()


async def test_start_that_is_cancelled_keeps_nothing_open(instances: Instances, watcher: Supervision) -> None:
    await watcher.means()
    before = opened()
    made = launch(instances)
    starting = asyncio.create_task(watcher.start(made))
    await until(lambda: opened() > before)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert starting.cancelled()
    await until(lambda: opened() == before)
    await watcher.clear(made.instance)


def opened() -> set[str]:
    """What this process has open."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}
