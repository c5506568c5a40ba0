"""The contract's messages and the agent's own words."""

import pytest

from edge_agent.runtime.convert import desired_from_pb, timestamp, workload_from_pb, workload_to_pb
from edge_agent.runtime.model import (
    Artifact,
    ArtifactKind,
    Check,
    CommandProbe,
    HttpProbe,
    InferenceProbe,
    Mount,
    Port,
    ProjectVolume,
    Resources,
    RestartPolicy,
    Secret,
    TcpProbe,
    UpdateStrategy,
    Volume,
    Workload,
)
from longshore.v1 import types_pb2
from longshore.v1.agent_pb2 import DesiredState, DesiredWorkload
from tests.support.workloads import make_workload


def minimal() -> types_pb2.Workload:
    message = types_pb2.Workload(deployment_id="d1", revision=1)
    message.artifact.repository, message.artifact.digest = "registry.example/digits", "sha256:abc"
    message.spec.ports.add(name="http", container_port=8000)
    message.spec.readiness.tcp.port = "http"
    return message


def test_what_a_message_leaves_out_has_the_defaults_of_the_contract() -> None:
    workload = workload_from_pb(minimal())
    assert workload.readiness == Check(TcpProbe("http"), period=10, timeout=2, deadline=120, failure_threshold=3)
    assert workload.stop_grace == 10
    assert workload.restart is RestartPolicy.ALWAYS


def test_a_grace_of_zero_means_at_once() -> None:
    message = minimal()
    message.spec.stop_grace.SetInParent()
    assert workload_from_pb(message).stop_grace == 0


def test_an_http_check_without_a_path_asks_for_the_root() -> None:
    message = minimal()
    message.spec.readiness.http.port = "http"
    assert workload_from_pb(message).readiness.probe == HttpProbe("http", "/")


@pytest.mark.parametrize(
    "workload",
    [
        make_workload(),
        make_workload(
            readiness=Check(HttpProbe("http", "/healthz"), 1.5, 0.25, 30.0, 5),
            entrypoint=("serve", "--fast"),
            environment=(("A", "1"), ("B", "")),
            working_dir="/app",
            ports=(Port("http", 8000, 80), Port("metrics", 9000)),
            mounts=(Mount("/data", "/in"), Mount("/out", "/out", read_only=False)),
            resources=Resources(1500, 2**30, 64),
            devices=("nvidia.com/gpu=all",),
            restart=RestartPolicy.ON_FAILURE,
            stop_grace=0.0,
        ),
        make_workload(readiness=Check(CommandProbe(("sh", "-c", "true")))),
        make_workload(
            artifact=Artifact("registry.example/digits", "sha256:abc", "linux/arm64", ArtifactKind.BUNDLE),
            readiness=Check(InferenceProbe("http", "/infer", b"{}", "text/plain", '{"a": 1}', 0.5, 0.25)),
            liveness=Check(HttpProbe("http", "/live"), failure_threshold=2),
            resources=Resources(shared_memory_bytes=2**26, cpu_set="0-1"),
            volumes=(Volume("data", "/data"), Volume("models", "/models", read_only=True)),
            secrets=(Secret("token", "/run/secrets/token", b"\x00hush"),),
            project_volumes=(ProjectVolume("model", "/m", "registry.example/v", f"sha256:{'a' * 64}", 7),),
            update=UpdateStrategy.STOP_FIRST,
            allow=frozenset({"root", "CAP_SYS_NICE"}),
        ),
    ],
)
def test_a_workload_is_the_same_after_the_way_there_and_back(workload: Workload) -> None:
    assert workload_from_pb(workload_to_pb(workload)) == workload


def test_a_secret_is_in_no_text_of_its_workload() -> None:
    assert "hush" not in repr(make_workload(secrets=(Secret("token", "/run/secrets/token", b"hush"),)))


def break_digest(message: types_pb2.Workload) -> None:
    message.artifact.digest = ""


def break_check(message: types_pb2.Workload) -> None:
    message.spec.readiness.ClearField("tcp")


def break_port(message: types_pb2.Workload) -> None:
    message.spec.readiness.tcp.port = "grpc"


def break_command(message: types_pb2.Workload) -> None:
    message.spec.readiness.command.SetInParent()


def break_time(message: types_pb2.Workload) -> None:
    message.spec.readiness.period.seconds = -1


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (break_digest, "no digest"),
        (break_check, "no readiness check"),
        (break_port, "port 'grpc', which the workload does not have"),
        (break_command, "empty command"),
        (break_time, "negative"),
    ],
)
def test_one_broken_workload_is_set_aside_with_its_problem_and_the_rest_stands(spoil, problem: str) -> None:  # type: ignore[no-untyped-def]
    broken = minimal()
    spoil(broken)
    good = minimal()
    good.deployment_id = "d2"
    wishes = [DesiredWorkload(workload=broken), DesiredWorkload(workload=good, stopped=True)]
    desired, aside = desired_from_pb(DesiredState(generation=4, workloads=wishes))
    assert [w.deployment_id for w in desired.workloads] == ["d2"]
    assert (desired.generation, desired.stopped) == (4, frozenset({"d2"}))
    (one,) = aside
    assert (one.deployment_id, one.revision) == ("d1", 1)
    assert problem in one.problem


def test_a_workload_that_the_controller_cannot_tell_is_set_aside_with_the_reason() -> None:
    wishes = [DesiredWorkload(workload=minimal(), problem="no key")]
    desired, aside = desired_from_pb(DesiredState(workloads=wishes))
    assert desired.workloads == ()
    assert [(broken.deployment_id, broken.problem) for broken in aside] == [(minimal().deployment_id, "no key")]


def test_a_deployment_that_is_wished_for_twice_counts_once() -> None:
    wishes = [DesiredWorkload(workload=minimal()), DesiredWorkload(workload=minimal())]
    desired, aside = desired_from_pb(DesiredState(workloads=wishes))
    assert len(desired.workloads) == len(aside) == 1


def test_a_timestamp_is_exact_to_the_microsecond() -> None:
    stamp = timestamp(1_700_000_000.123456)
    assert (stamp.seconds, stamp.nanos) == (1_700_000_000, 123_456_000)
    assert timestamp(0.9999999).seconds == 1
