"""Bad input of any size gets a precise error, also by clients that take no more metadata than gRPC's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from longshore.client import Client, project
from longshore.failures import LongshoreError, from_rpc
from longshore.v1 import (
    build_pb2,
    build_pb2_grpc,
    deployment_pb2,
    deployment_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
)
from tests.support.sync_stack import SyncStack, running_stack

PROBLEMS = 2000
GOOD = """\
version: 1
name: digits
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: x86-cpu}]
"""
BAD = (GOOD + "".join(f"wrong-key-{number}: 1\n" for number in range(PROBLEMS))).encode()
ALICE = project("alice", "digits")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("precise")) as running:
        yield running


@pytest.fixture
def usual(stack: SyncStack) -> Iterator[grpc.Channel]:
    """A channel such as generated stubs in any language have."""
    context = yaml.safe_load(stack.context_file.read_text())
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(context["ca"].encode()), grpc.access_token_call_credentials(context["token"])
    )
    with grpc.secure_channel(context["address"], credentials) as channel:
        yield channel


def stub(service: str, channel: grpc.Channel) -> Any:
    """The types of the generated stubs are those of asyncio."""
    kinds: dict[str, Any] = {
        "build": build_pb2_grpc.BuildServiceStub,
        "deployment": deployment_pb2_grpc.DeploymentServiceStub,
        "device": device_pb2_grpc.DeviceServiceStub,
    }
    return kinds[service](channel)


def test_a_usual_client_is_told_the_first_of_very_many_problems(usual: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub("build", usual).CreateBuild(build_pb2.CreateBuildRequest(project=ALICE, spec=BAD))
    failure = from_rpc(raised.value)
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert f"and {PROBLEMS - 1} more" in failure.message
    assert [problem.line for problem in failure.problems] == list(range(5, 5 + len(failure.problems)))
    assert len(failure.problems) > 10


def test_our_client_is_told_all_of_very_many_problems(stack: SyncStack, tmp_path: Path) -> None:
    (tmp_path / "deployment.yml").write_bytes(BAD)
    with stack.client() as client, pytest.raises(LongshoreError) as raised:
        client.build(tmp_path / "deployment.yml", ALICE)
    assert len(raised.value.problems) == PROBLEMS


def create_build(**fields: object) -> Message:
    request = build_pb2.CreateBuildRequest(project=ALICE, spec=GOOD.encode())
    request.MergeFrom(build_pb2.CreateBuildRequest(**fields))  # type: ignore[arg-type]
    return request


BAD_REQUESTS = {
    "a user id of 100 KiB": ("build", "CreateBuild", create_build(project=project("a" * 100_000, "p")), "project"),
    "a request id of 100 KiB": ("build", "CreateBuild", create_build(request_id="r" * 100_000), "request_id"),
    "a lifetime of ages": (
        "device",
        "CreateEnrollToken",
        device_pb2.CreateEnrollTokenRequest(lifetime=Duration(seconds=2**62)),
        "lifetime",
    ),
    "a label that is none": ("device", "ListDevices", device_pb2.ListDevicesRequest(labels={'a"b': "c"}), "labels"),
    "a name that stands for another device": (
        "device",
        "CreateEnrollToken",
        device_pb2.CreateEnrollTokenRequest(device_name="dev-0123456789abcdef"),
        "device_name",
    ),
    "a label of a token that is none": (
        "device",
        "CreateEnrollToken",
        device_pb2.CreateEnrollTokenRequest(labels={"": "c"}),
        "labels",
    ),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_fields_are_named(usual: grpc.Channel, case: str) -> None:
    service, method, request, field = BAD_REQUESTS[case]
    with pytest.raises(grpc.RpcError) as raised:
        getattr(stub(service, usual), method)(request)
    failure = from_rpc(raised.value)
    assert failure.code == "INVALID_ARGUMENT"
    assert [problem.path.partition(".")[0] for problem in failure.problems] == [field]


def test_targets_for_which_a_build_has_nothing_are_refused(stack: SyncStack, usual: grpc.Channel) -> None:
    made = stub("build", usual).CreateBuild(create_build()).build
    spec = GOOD.replace("}]\n", "}, {profile: arm64-cpu}]\n").replace("80}, {profile: arm64-cpu}]}}", "80}]}}")
    request = deployment_pb2.ApplyDeploymentRequest(project=ALICE, spec=spec.encode(), build_id=made.id)
    with pytest.raises(grpc.RpcError) as raised:
        stub("deployment", usual).ApplyDeployment(request)
    assert "arm64-cpu" in from_rpc(raised.value).message
    with stack.client() as client:
        assert_nothing_stored(client)


def assert_nothing_stored(client: Client) -> None:
    assert list(client.list_deployments(ALICE)) == []


def test_sessions_with_an_instance_say_what_is_wrong_with_them(usual: grpc.Channel, tmp_path: Path) -> None:
    made = stub("deployment", usual).ApplyDeployment(
        deployment_pb2.ApplyDeploymentRequest(project=ALICE, spec=GOOD.replace("x86-cpu", "armv7-cpu").encode())
    )
    start = deployment_pb2.ExecStart(deployment_id=made.deployment.id, command=["ls"])
    nowhere = deployment_pb2.ExecStart(deployment_id="dep-0", command=["ls"])
    idle = deployment_pb2.ExecStart(deployment_id=made.deployment.id)
    port = deployment_pb2.PortForwardStart(deployment_id=made.deployment.id)
    calls: list[tuple[str, list[Message], str, str]] = [
        ("Exec", [], "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("Exec", [deployment_pb2.ExecRequest(stdin=b"x")], "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("Exec", [deployment_pb2.ExecRequest(start=idle)], "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("Exec", [deployment_pb2.ExecRequest(start=nowhere)], "NOT_FOUND", "NO_SUCH_DEPLOYMENT"),
        ("Exec", [deployment_pb2.ExecRequest(start=start)], "NOT_FOUND", "NO_SUCH_INSTANCE"),
        ("PortForward", [deployment_pb2.PortForwardRequest(data=b"x")], "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("PortForward", [deployment_pb2.PortForwardRequest(start=port)], "NOT_FOUND", "NO_SUCH_INSTANCE"),
    ]
    for name, requests, code, reason in calls:
        with pytest.raises(grpc.RpcError) as raised:
            list(getattr(stub("deployment", usual), name)(iter(requests)))
        failure = from_rpc(raised.value)
        assert (name, failure.code, failure.reason) == (name, code, reason)
