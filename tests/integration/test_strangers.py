"""Who gets what from the real controller: a stranger nothing, a member its own, a device what is made for it."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml

from controller.pki import CertificateAuthority
from controller.rpc.permissions import PERMISSIONS, Permission
from longshore.client import Client, project
from longshore.failures import LongshoreError
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.tokens import token
from tests.support.waiting import eventually

pytestmark = pytest.mark.xdist_group("strangers")

SPEC = """\
version: 1
name: secret
deploy:
  entrypoint: [python3, -V]
  network: {ports: [{name: http, container: 8080}]}
targets: [{profile: arm64-cpu, labels: {nobody: has-this}}]
"""
STREAMING = {"WriteUpload": "stream_unary", "ReadBuildLog": "unary_stream", "ReadInstanceLog": "unary_stream"}
STREAMING |= {"WatchEvents": "unary_stream", "Channel": "stream_stream", "ServerReflectionInfo": "stream_stream"}
STREAMING |= {"Watch": "unary_stream", "Exec": "stream_stream", "PortForward": "stream_stream"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("strangers")) as running:
        yield running


@dataclass(frozen=True)
class Caller:
    """A channel and what it says of itself."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...] = ()

    def code(self, method: str) -> grpc.StatusCode:
        """What an empty request to this method ends with."""
        shape = STREAMING.get(method.rpartition("/")[2], "unary_unary")
        request = b"" if shape.startswith("unary") else iter([b""])
        call = getattr(self.channel, shape)(method)(request, metadata=self.metadata, timeout=20)
        try:
            if shape.endswith("stream"):
                next(call, None)
                call.cancel()
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


def code_of(caller: Caller, method: str) -> grpc.StatusCode:
    try:
        return caller.code(method)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code


@contextlib.contextmanager
def channel(stack: SyncStack, address: str, device: str = "") -> Iterator[grpc.Channel]:
    """To one of the controller's ports, with the certificate of a device if one is named."""
    ca_file = stack.stack.ca_file
    pair = CertificateAuthority.load(ca_file.parent).issue_client(device) if device else None
    credentials = grpc.ssl_channel_credentials(
        ca_file.read_bytes(), pair.key_pem.encode() if pair else None, pair.certificate_pem.encode() if pair else None
    )
    with grpc.secure_channel(address, credentials) as made:
        yield made


def client(stack: SyncStack, secret: str) -> Client:
    context = yaml.safe_load(stack.context_file.read_text())
    return Client(context["address"], secret, context["ca"], patience=1)


def guarded(*permissions: Permission) -> list[str]:
    return sorted(method for method, permission in PERMISSIONS.items() if permission in permissions)


def test_a_stranger_gets_nothing(stack: SyncStack) -> None:
    public = stack.stack.settings.public.address
    with channel(stack, public) as open_channel:
        for metadata in ((), (("authorization", "Bearer nonsense"),), (("authorization", "Basic eDp5"),)):
            stranger = Caller(open_channel, metadata)
            codes = {m: code_of(stranger, m) for m in guarded(Permission.USER, Permission.ADMIN, Permission.DEVICE)}
            assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}, codes
        assert code_of(Caller(open_channel), "/longshore.v1.AgentService/Enroll") is grpc.StatusCode.UNAUTHENTICATED
        assert code_of(Caller(open_channel), "/grpc.health.v1.Health/Check") is grpc.StatusCode.OK


def test_the_agents_port_takes_certificates_of_this_installation_only(stack: SyncStack, tmp_path: Path) -> None:
    agents = stack.stack.settings.agents.address
    with channel(stack, agents) as without:
        assert code_of(Caller(without), "/grpc.health.v1.Health/Check") is grpc.StatusCode.UNAVAILABLE
    foreign = CertificateAuthority.create(tmp_path).issue_client("dev-1")
    credentials = grpc.ssl_channel_credentials(
        stack.stack.ca_file.read_bytes(), foreign.key_pem.encode(), foreign.certificate_pem.encode()
    )
    with grpc.secure_channel(agents, credentials) as made:
        assert code_of(Caller(made), "/grpc.health.v1.Health/Check") is grpc.StatusCode.UNAVAILABLE


def test_a_device_gets_only_what_is_made_for_devices(stack: SyncStack) -> None:
    with channel(stack, stack.stack.settings.agents.address, "dev-unknown") as made:
        device = Caller(made)
        codes = {method: code_of(device, method) for method in guarded(Permission.USER, Permission.ADMIN)}
        assert set(codes.values()) == {grpc.StatusCode.PERMISSION_DENIED}, codes
        # A certificate of ours whose device does not exist (any more).
        codes = {method: code_of(device, method) for method in guarded(Permission.DEVICE)}
        assert set(codes.values()) == {grpc.StatusCode.PERMISSION_DENIED}, codes


def test_a_member_gets_nothing_of_administrators_and_devices(stack: SyncStack) -> None:
    secret = token(stack, "member-of-alice", "--user", "alice")
    with channel(stack, stack.stack.settings.public.address) as made:
        member = Caller(made, (("authorization", f"Bearer {secret}"),))
        codes = {method: code_of(member, method) for method in guarded(Permission.ADMIN, Permission.DEVICE)}
        assert set(codes.values()) == {grpc.StatusCode.PERMISSION_DENIED}, codes


def reach_port(caller: Client, deployment_id: str) -> None:
    """Raises what a connection to a port of the deployment fails with."""
    failures: list[LongshoreError] = []
    with caller.port_forward(deployment_id, "http", on_failure=failures.append) as forwarder:
        with socket.create_connection(forwarder.address, timeout=20), contextlib.suppress(AssertionError):
            eventually(lambda: bool(failures))
        for failure in failures:
            raise failure


def test_a_member_sees_and_touches_its_own_projects_only(stack: SyncStack, tmp_path: Path) -> None:
    (tmp_path / "deployment.yml").write_text(SPEC)
    alices = project("alice", "secrets")
    with client(stack, token(stack, "alice", "--user", "alice")) as alice:
        deployment = alice.deploy(tmp_path / "deployment.yml", alices).deployment
        build = alice.build(tmp_path / "deployment.yml", alices)
        assert alice.get_deployment(deployment.id).deployment.name == "secret"
        assert [found.id for found in alice.list_deployments()] == [deployment.id]
    with client(stack, token(stack, "bob", "--user", "bob")) as bob:
        hidden: list[Callable[[], object]] = [
            lambda: bob.get_deployment(deployment.id),
            lambda: bob.stop(deployment.id),
            lambda: bob.delete(deployment.id),
            lambda: list(bob.list_revisions(deployment.id)),
            lambda: bob.diff_revisions(deployment.id),
            lambda: bob.diff_with_file(deployment.id, tmp_path / "deployment.yml"),
            lambda: bob.undo(deployment.id),
            lambda: list(bob.read_instance_log(deployment.id)),
            lambda: bob.exec(deployment.id, ["sh"]).wait(),
            lambda: reach_port(bob, deployment.id),
            lambda: bob.get_build(build.id),
            lambda: list(bob.read_build_log(build.id)),
        ]
        for look in hidden:
            with pytest.raises(LongshoreError, match=r"no (deployment|build) "):
                look()
        denied: list[Callable[[], object]] = [
            lambda: bob.find_deployment(alices, "secret"),
            lambda: bob.deploy(tmp_path / "deployment.yml", alices),
            lambda: bob.build(tmp_path / "deployment.yml", alices),
            lambda: list(bob.watch_events(alices)),
            lambda: list(bob.watch_events(None)),
            lambda: bob.push_volume("model", alices, [tmp_path / "deployment.yml"]),
            lambda: bob.get_volume(alices, "model"),
            lambda: bob.delete_volume(alices, "model"),
        ]
        for attempt in denied:
            with pytest.raises(LongshoreError, match=r"may act in the projects of user bob only|for administrators"):
                attempt()
        assert list(bob.list_deployments(user_id="alice")) == list(bob.list_instances(user_id="alice")) == []
        assert list(bob.list_deployments()) == list(bob.list_builds()) == list(bob.list_instances()) == []
        assert (
            list(bob.list_instances(alices))
            == list(bob.list_deployments(alices))
            == list(bob.list_builds(alices))
            == []
        )


def test_the_value_of_a_secret_is_told_to_no_user_again(stack: SyncStack, tmp_path: Path) -> None:
    path, owner = tmp_path / "deployment.yml", project("alice", "hidden")
    path.write_text(
        SPEC.replace("deploy:\n", "deploy:\n  secrets: [{name: token}]\n").replace("name: secret", "name: hidden")
    )
    with client(stack, token(stack, "owner", "--user", "alice")) as alice, client(stack, token(stack, "root")) as admin:
        with pytest.raises(LongshoreError, match=r"deploy\.secrets names 'token', and neither"):
            alice.deploy(path, owner)
        applied = alice.deploy(path, owner, secrets={"token": b"hunter2-of-alice"})
        found, build = alice.get_deployment(applied.deployment.id), applied.deployment.build_id
        told: list[object] = [applied, found, *alice.list_deployments(owner), *alice.list_instances(owner)]
        told += [alice.get_build(build), *alice.watch_events(owner), *admin.list_deployments()]
        assert b"token" in found.deployment.spec, "its name is no secret"
        assert "hunter2" not in "".join(map(str, told))
    with client(stack, token(stack, "thief", "--user", "bob")) as bob:
        for look in (lambda: bob.get_deployment(applied.deployment.id), lambda: bob.deploy(path, owner)):
            with pytest.raises(LongshoreError, match=r"no deployment|projects of user bob only"):
                look()
    # The database with all that is not yet in its main file, and the log.
    files = [file for file in stack.stack.folder.root.glob("controller.*") if file.is_file()]
    assert {"controller.db", "controller.log"} <= {file.name for file in files}
    assert [file.name for file in files if b"hunter2" in file.read_bytes()] == []


def test_a_revoked_token_is_useless_at_once(stack: SyncStack) -> None:
    secret = token(stack, "short-lived")
    with client(stack, secret) as admin:
        assert list(admin.list_devices()) == []
        argv = [sys.executable, "-m", "controller.admin", "token", "revoke", "short-lived"]
        subprocess.run([*argv, "--data-dir", str(stack.stack.folder.root)], check=True)
        with pytest.raises(LongshoreError, match="not known"):
            list(admin.list_devices())


def test_secrets_are_stored_as_hashes_only(stack: SyncStack) -> None:
    secret = token(stack, "hashed")
    with client(stack, secret) as admin:
        join = admin.create_enroll_token(device_name="never").token
    stored = b"".join(path.read_bytes() for path in stack.stack.folder.root.glob("controller.db*"))
    assert secret.encode() not in stored
    assert join.encode() not in stored


def test_nothing_is_stored_of_a_spec_that_is_refused(stack: SyncStack, tmp_path: Path) -> None:
    (tmp_path / "deployment.yml").write_text("version: 1\nname: Bad Name\nbuidl: {}\ntargets: [{profile: x86-cpuu}]\n")
    nobodys = project("carol", "bad")
    with client(stack, token(stack, "carol")) as admin:
        for attempt in (admin.deploy, admin.build):
            with pytest.raises(LongshoreError) as refused:
                attempt(tmp_path / "deployment.yml", nobodys)
            assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT.name
            places = {problem.path: (problem.line, problem.column) for problem in refused.value.problems}
            assert places["name"] == (2, 7)
            assert places["buidl"] == (3, 1)
            assert places["targets[0].profile"] == (4, 21)
            assert any("build" in problem.message for problem in refused.value.problems if problem.path == "buidl")
        assert list(admin.list_builds(nobodys)) == list(admin.list_deployments(nobodys)) == []
        assert list(admin.watch_events(nobodys)) == []
