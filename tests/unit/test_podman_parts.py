"""The pure parts of the Podman backend: what is asked of Podman, and how its answers are read."""

import os
import signal
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.podman import container, frames, machine, spec
from edge_agent.podman.config import HostFacts, render, unmounted_hierarchies
from edge_agent.podman.connection import Connection
from edge_agent.podman.errors import pull_error, start_error
from edge_agent.podman.inventory import Inventory
from edge_agent.podman.ledger import Entry, Ledger
from edge_agent.podman.service import PodmanService
from edge_agent.runtime.backend import Phase
from edge_agent.runtime.log_file import LogFile
from edge_agent.runtime.model import Artifact, Check, Port, Resources, TcpProbe, Workload

WORKLOAD = Workload(
    deployment_id="d1",
    revision=3,
    name="digits",
    user_id="alice",
    project_id="demo",
    artifact=Artifact("registry:5000/alice/digits", "sha256:abc", "linux/amd64"),
    readiness=Check(TcpProbe("http")),
    ports=(Port("http", 8080), Port("metrics", 9090, 19090)),
)


def inspected(**state: object) -> dict[str, Any]:
    """As Podman 4.3 answers."""
    labels = spec.create_body(WORKLOAD, "device-1", spec.Setting())["labels"]
    ports = {
        "8080/tcp": [{"HostIp": "", "HostPort": "41234"}],
        "9090/tcp": [{"HostIp": "10.0.0.1", "HostPort": "19090"}],
    }
    return {
        "Id": "c0ffee",
        "State": {
            "Status": "running",
            "Pid": 42,
            "ConmonPid": 41,
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-01-02T03:04:05.123456789Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            **state,
        },
        "Config": {"Labels": labels, "StopSignal": 15},
        "HostConfig": {"LogConfig": {"Path": "/var/log/x"}, "Memory": 1024},
        "NetworkSettings": {"Ports": {**ports, "53/udp": None}},
    }


def test_create_body_names_limits_and_takes_all_rights_away() -> None:
    limited = replace(WORKLOAD, resources=Resources(cpu_millis=1500, memory_bytes=1 << 20, pids=7))
    body = spec.create_body(limited, "device-1", spec.Setting())
    assert body["resource_limits"] == {
        "cpu": {"period": 100000, "quota": 150000},
        "memory": {"limit": 1 << 20},
        "pids": {"limit": 7},
    }
    assert (body["cap_drop"], body["cap_add"], body["no_new_privileges"]) == (["ALL"], [], True)
    assert body["image"] == "registry:5000/alice/digits@sha256:abc"
    assert str(body["name"]).startswith("longshore-digits-r3-")
    assert "entrypoint" not in body
    assert "devices" not in body


def restricted(image_user: str = "", **changes: Any) -> dict[str, object]:
    return spec.create_body(replace(WORKLOAD, **changes), "device-1", spec.Setting(image_user))


PRIVATE = {"nsmode": "private"}


def test_nothing_is_allowed_that_is_not_named() -> None:
    body = restricted()
    assert (body["read_only_filesystem"], body["no_new_privileges"], body["user"]) == (True, True, "1000:1000")
    assert [body[kind] for kind in ("netns", "pidns", "ipcns")] == [
        {"nsmode": m} for m in ("bridge", "private", "private")
    ]
    assert "seccomp_profile_path" not in body
    mounts: Any = body["mounts"]
    assert [(m["type"], m["destination"]) for m in mounts] == [("tmpfs", p) for p in ("/tmp", "/var/tmp", "/run")]


@pytest.mark.parametrize(
    ("name", "field", "loosened"),
    [
        ("writable-root", "read_only_filesystem", False),
        ("new-privileges", "no_new_privileges", False),
        ("seccomp-unconfined", "seccomp_profile_path", "unconfined"),
        ("host-network", "netns", {"nsmode": "host"}),
        ("host-pid", "pidns", {"nsmode": "host"}),
        ("host-ipc", "ipcns", {"nsmode": "host"}),
        ("CAP_SYS_NICE", "cap_add", ["SYS_NICE"]),
    ],
)
def test_each_default_is_loosened_by_its_name_alone(name: str, field: str, loosened: object) -> None:
    tight, loose = restricted(), restricted(allow=frozenset({name}))
    assert loose[field] == loosened != tight.get(field)
    rest = {"name", "labels", "mounts", "portmappings", field}
    assert {k: v for k, v in loose.items() if k not in rest} == {k: v for k, v in tight.items() if k not in rest}


@pytest.mark.parametrize(
    ("image_user", "root"),
    [("", True), ("0", True), ("root:wheel", True), ("0:0", True), ("app", False), ("1234:0", False)],
)
def test_root_of_an_image_becomes_a_user_unless_root_is_allowed(image_user: str, root: bool) -> None:
    assert ("user" in restricted(image_user)) is root
    assert "user" not in restricted(image_user, allow=frozenset({"root"}))


def test_a_share_of_the_processor_is_told_to_numeric_libraries_unless_somebody_else_does() -> None:
    setting = spec.Setting(image_variables=frozenset({"OMP_NUM_THREADS"}))
    shared = replace(WORKLOAD, resources=Resources(cpu_millis=1500), environment=(("NPROC", "7"),))
    env: Any = spec.create_body(shared, "device-1", setting)["env"]
    assert "OMP_NUM_THREADS" not in env
    assert (env["NPROC"], env["OPENBLAS_NUM_THREADS"], env["PYTHON_CPU_COUNT"]) == ("7", "2", "2")
    assert spec.create_body(WORKLOAD, "device-1", setting)["env"] == dict(WORKLOAD.environment)


def test_accelerators_are_asked_for_by_their_cdi_names() -> None:
    body = spec.create_body(replace(WORKLOAD, devices=("nvidia.com/gpu=all",)), "device-1", spec.Setting())
    assert body["devices"] == [{"path": "nvidia.com/gpu=all"}]


def test_container_is_read_back_as_what_was_asked_for() -> None:
    parsed = container.parse(inspected())
    seen = container.observed(parsed, runs=True, starting=False)
    assert (seen.deployment_id, seen.revision, seen.artifact_digest) == ("d1", 3, "sha256:abc")
    assert seen.addresses == (("http", ("127.0.0.1", 41234)), ("metrics", ("10.0.0.1", 19090)))
    assert seen.started_at == pytest.approx(datetime(2026, 1, 2, 3, 4, 5, 123456, UTC).timestamp(), abs=1e-5)
    assert (seen.phase, seen.finished_at, seen.exit_code) == (Phase.RUNNING, 0.0, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2, signal.SIGINT),
        ("SIGINT", signal.SIGINT),
        ("int", signal.SIGINT),
        ("9", signal.SIGKILL),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-14", signal.SIGRTMAX - 14),
        ("SIGRTMIN+99", signal.SIGTERM),
        ("SIGRTMIN-30", signal.SIGTERM),
        ("SIGNONSENSE", signal.SIGTERM),
        (4711, signal.SIGTERM),
        (None, signal.SIGTERM),
        ("", signal.SIGTERM),
    ],
)
def test_stop_signal_may_be_a_number_or_a_name(given: object, expected: int) -> None:
    answer = inspected()
    answer["Config"]["StopSignal"] = given
    assert container.parse(answer).stop_signal == expected


def test_container_that_a_power_cut_left_has_ended_without_an_exit_code() -> None:
    parsed = container.parse(inspected(Status="created", Pid=0, ConmonPid=0))
    seen = container.observed(parsed, runs=False, starting=False)
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, None)
    assert container.observed(parsed, runs=False, starting=True).phase is Phase.CREATED


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"ExitCode": 0}, "PowerLost"),
        ({"ExitCode": -1, "FinishedAt": "2026-01-02T03:05:05.123456789Z"}, "MonitorLost"),
    ],
)
def test_an_end_that_podman_5_has_not_seen_has_no_exit_code(
    state: dict[str, object], reason: str, tmp_path: Path
) -> None:
    inventory = Inventory(Connection(PodmanService(tmp_path)), "device-1")
    seen = inventory.observed(container.parse(inspected(Status="exited", Pid=0, **state)))
    assert (seen.phase, seen.exit_code, seen.exit_reason) == (Phase.EXITED, None, reason)


class Answers(Connection):
    """Podman's answers about the only container, one after the other; the last one again and again."""

    def __init__(self, folder: Path, *answers: dict[str, Any]) -> None:
        super().__init__(PodmanService(folder))
        self._answers = list(answers)

    async def call(self, method: str, path: str, **_: Any) -> Any:
        if path == "containers/json":
            return [{"Id": self._answers[0]["Id"]}]
        return self._answers.pop(0) if self._answers[1:] else self._answers[0]


# No process has such a number.
GONE = inspected(Pid=2**22 + 1, ConmonPid=2**22 + 2)
ENDED = inspected(Status="exited", Pid=0, ConmonPid=0, ExitCode=3, FinishedAt="2026-01-02T03:05:05.123456789Z")


async def test_an_end_that_was_written_down_before_the_monitor_went_is_not_lost(tmp_path: Path) -> None:
    inventory = Inventory(Answers(tmp_path, GONE, ENDED), "device-1")
    (seen,) = [inventory.observed(each) for each in await inventory.containers()]
    assert (seen.phase, seen.exit_code, seen.exit_reason) == (Phase.EXITED, 3, "")


async def test_an_end_that_nobody_was_left_to_write_down_is_told_as_such(tmp_path: Path) -> None:
    inventory = Inventory(Answers(tmp_path, GONE), "device-1")
    (seen,) = [inventory.observed(each) for each in await inventory.containers()]
    assert (seen.phase, seen.exit_code, seen.exit_reason) == (Phase.EXITED, None, "MonitorLost")


async def test_what_cannot_be_read_any_more_and_does_not_run_is_not_told_as_running(tmp_path: Path) -> None:
    inventory = Inventory(Answers(tmp_path, GONE, {"Id": GONE["Id"]}), "device-1")
    await inventory.finish_start(GONE["Id"])
    (seen,) = [inventory.observed(each) for each in await inventory.containers()]
    assert (seen.phase, seen.exit_code, seen.exit_reason) == (Phase.EXITED, None, "MonitorLost")


def test_no_end_is_told_before_podman_was_asked_how(tmp_path: Path) -> None:
    """Between the look that saw it run and the telling of that look, it may have ended."""
    inventory = Inventory(Answers(tmp_path, GONE), "device-1")
    assert inventory.observed(container.parse(GONE)).phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        (
            "initializing source: reading manifest sha256:abc in r/x: manifest unknown: manifest unknown",
            "ImageNotFound",
            0,
        ),
        ("reading manifest: name unknown: repository name not known to registry", "ImageNotFound", 0),
        ("reading manifest: unauthorized: authentication required", "ImagePullDenied", 1),
        ("denied: requested access to the resource is denied", "ImagePullDenied", 1),
        ("writing blob: storing blob to file: write: no space left on device", "DiskFull", 1),
        ("pinging container registry: dial tcp 10.0.0.1:5000: connect: connection refused", "ImagePullFailed", 1),
        ("x509: certificate signed by unknown authority", "ImagePullFailed", 1),
    ],
)
def test_pull_errors_are_told_apart(text: str, reason: str, retryable: int) -> None:
    error = pull_error("r/x@sha256:abc", text)
    assert (error.reason, error.retryable) == (reason, bool(retryable))


@pytest.mark.parametrize(
    ("text", "reason", "retryable"),
    [
        ("cannot listen on the TCP port: listen tcp4 :19090: bind: address already in use", "PortInUse", 1),
        ('runc create failed: exec: "nonesuch": executable file not found in $PATH', "CommandNotFound", 0),
        ("crun: executable file `nonesuch` not found in $PATH: No such file or directory", "CommandNotFound", 0),
        (
            'container "4": recreating the links: 1 error: open /s/overlay/9/link: no such file or directory',
            "StartFailed",
            1,
        ),
        ("mkdir /var/lib/containers/x: no space left on device", "DiskFull", 1),
        ("registry:5000/alice/digits@sha256:abc: image not known", "NotPrepared", 0),
        ("exec /bin/x: exec format error", "WrongArchitecture", 0),
        ("setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all", "DeviceMissing", 1),
        ("something new", "StartFailed", 1),
    ],
)
def test_start_errors_are_told_apart(text: str, reason: str, retryable: int) -> None:
    error = start_error(WORKLOAD, text)
    assert (error.reason, error.retryable) == (reason, bool(retryable))


def test_taken_port_is_named_by_number_and_by_its_name_in_the_spec() -> None:
    error = start_error(WORKLOAD, "listen tcp4 :19090: bind: address already in use")
    assert error.message == "port 19090 (metrics) of this device is in use"


def test_settings_follow_the_host() -> None:
    restricted = render(HostFacts(1000, 500, systemd=False, runtime="runc", network_backend="netavark"), Path("/t"))
    assert 'default_ulimits = ["nofile=1000:1000", "nproc=500:500"]' in restricted
    assert 'cgroup_manager = "cgroupfs"' in restricted
    assert 'runtime = "runc"' in restricted
    assert "pids_limit" not in restricted
    uncounted = replace(HostFacts(1000, 500, systemd=False, runtime="", network_backend=""), counts_processes=False)
    assert "pids_limit = 0" in render(uncounted, Path("/t"))
    usual = render(HostFacts(1000, 500, systemd=True, runtime="", network_backend=""), Path("/t"))
    assert 'cgroup_manager = "systemd"' in usual
    assert "runtime =" not in usual
    assert "[network]" not in usual


def test_hierarchies_that_are_not_mounted_are_named(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("9:hugetlb:/\n4:cpu,cpuacct:/x\n2:name=systemd:/\n0::/\n")
    for name in ("cpu,cpuacct", "systemd"):
        (tmp_path / "sys/fs/cgroup" / name).mkdir(parents=True)
    assert unmounted_hierarchies(tmp_path) == ["hugetlb"]
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    assert unmounted_hierarchies(tmp_path) == []


def test_all_of_a_container_is_counted_however_its_groups_are_nested() -> None:
    name = "ab" * 32
    scope = f"/machine.slice/libpod-{name}.scope"
    for inner in ("", "/container", "/container/init.scope"):
        assert machine.container_group(scope + inner, name) == scope
    assert machine.container_group("/somewhere/else", name) == "/somewhere/else"


def test_frames_may_be_cut_anywhere() -> None:
    whole = frames.HEADER.pack(1, 4) + b"out\n" + frames.HEADER.pack(2, 4) + b"err\n"
    assert frames.payload((whole[at : at + 1] for at in range(len(whole))), 100) == b"out\nerr\n"
    assert frames.payload([whole], 1) == b"out\n"


def test_log_is_read_on_in_the_file_that_replaced_it(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    stamp = "2026-01-02T03:04:05.123456789+00:00"
    path.write_text(f"{stamp} stdout F one\n{stamp} stdout P tw")
    log = LogFile(path)
    assert [line.text for line in log.read()] == ["one"]
    with path.open("a") as old:
        old.write(f"\n{stamp} stderr F other\n{stamp} stdout F o\n")
    fresh = tmp_path / "fresh"
    fresh.write_text(f"{stamp} stdout F three\n")
    fresh.replace(path)
    assert [(line.stream, line.text) for line in log.read()] == [
        ("stderr", "other"), ("stdout", "two"), ("stdout", "three"),
    ]  # fmt: skip
    path.unlink()
    assert list(log.read()) == []
    assert log.removed


def test_reader_that_is_slow_loses_no_file_that_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    log = LogFile(path)
    for number in range(4):
        fresh = tmp_path / "fresh"
        fresh.write_text(f"2026-01-02T03:04:05.123456789+00:00 stdout F line {number}\n")
        fresh.replace(path)
        log.look()
    path.unlink()
    assert [line.text for line in log.read()] == ["line 0", "line 1", "line 2", "line 3"]
    assert log.removed


def test_ledger_keeps_what_it_was_told_and_survives_its_loss(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    Ledger(path).record("sha256:a", Entry("r/a@sha256:a"))
    Ledger(path).record("sha256:b", Entry("r/b@sha256:b", {"sha256:base": 100}))
    Ledger(path).forget("sha256:a")
    assert Ledger(path).entries() == {"sha256:b": Entry("r/b@sha256:b", {"sha256:base": 100})}
    assert Ledger(path).missing({"sha256:base": 100, "sha256:code": 7}) == 7
    path.write_text('{"sha256:a": "r/a@sha256:a"}')
    assert Ledger(path).entries() == {"sha256:a": Entry("r/a@sha256:a")}
    path.write_text("{")
    assert Ledger(path).entries() == {}


@pytest.mark.parametrize(
    ("family", "address", "heard"),
    [
        (socket.AF_INET, "0.0.0.0", True),
        (socket.AF_INET, "127.0.0.1", False),
        (socket.AF_INET, "127.9.9.9", False),
        (socket.AF_INET6, "::", True),
        (socket.AF_INET6, "::1", False),
        (socket.AF_INET6, "::ffff:127.0.0.1", False),
    ],
)
def test_a_port_is_listened_at_while_a_socket_does_that_others_can_reach(
    family: socket.AddressFamily, address: str, heard: bool
) -> None:
    with socket.socket(family) as server:
        server.bind((address, 0))
        port = server.getsockname()[1]
        assert machine.listens(os.getpid(), port) is False
        server.listen()
        assert machine.listens(os.getpid(), port) is heard
    assert machine.listens(os.getpid(), port) is False


def test_a_process_that_is_gone_tells_nothing_of_its_ports() -> None:
    assert machine.listens(2**22 + 1, 80) is None
