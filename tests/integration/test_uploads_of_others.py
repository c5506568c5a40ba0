"""A digest is no key: what a user has not uploaded is not there for this user, whoever else has."""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from longshore.client import Client, project
from longshore.errors import Reason
from longshore.failures import LongshoreError
from longshore.sources import archive_source, collect
from longshore.v1 import build_pb2, deployment_pb2, types_pb2
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.tokens import token

SPEC = b"""\
version: 1
name: served
build: {files: [model.bin]}
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: arm64-cpu, labels: {nobody: has-this}}]
"""
CONTENT = b"the model of alice" * 1000
BOBS = project("bob", "vision")


@dataclass(frozen=True)
class Users:
    alice: Client
    bob: Client
    admin: Client
    stack: SyncStack


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    with running_stack(tmp_path_factory.mktemp("others")) as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        alice, bob = (
            Client(context["address"], token(stack, name, "--user", name), context["ca"]) for name in ("alice", "bob")
        )
        with alice, bob, stack.client() as admin:
            yield Users(alice, bob, admin, stack)


def upload(client: Client, folder: Path, content: bytes = CONTENT) -> list[types_pb2.FileEntry]:
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(content)
    return client.upload(collect(folder, ["model.bin"]))


def state(client: Client, digest: str) -> tuple[bool, int]:
    request = build_pb2.StatUploadsRequest(digests=[digest])
    (found,) = client._call(client._builds.StatUploads, request, build_pb2.StatUploadsResponse).uploads
    return found.complete, found.held_bytes


def build(client: Client, **parts: object) -> build_pb2.Build:
    """Accepted, and cancelled at once: what it would make is of no interest."""
    request = build_pb2.CreateBuildRequest(project=BOBS, spec=SPEC, **parts)  # type: ignore[arg-type]
    made = client._call(client._builds.CreateBuild, request, build_pb2.CreateBuildResponse).build
    return client.cancel_build(made.id)


def deploy(client: Client, files: list[types_pb2.FileEntry]) -> deployment_pb2.Deployment:
    request = deployment_pb2.ApplyDeploymentRequest(project=BOBS, spec=SPEC, files=files)
    call = client._deployments.ApplyDeployment
    return client._call(call, request, deployment_pb2.ApplyDeploymentResponse).deployment


def stored(users: Users, size: int) -> int:
    """How many files of this size the controller keeps of uploads."""
    uploads = users.stack.stack.folder.root / "uploads"
    return sum(path.is_file() and path.stat().st_size == size for path in uploads.rglob("*"))


def test_who_knows_only_the_digest_is_told_that_it_is_missing_until_he_uploads_it_himself(
    users: Users, tmp_path: Path
) -> None:
    files = upload(users.alice, tmp_path / "alice")
    (file,) = files
    assert state(users.alice, file.digest) == (True, len(CONTENT))
    assert state(users.bob, file.digest) == (False, 0)
    attempts: list[Callable[[], object]] = [lambda: build(users.bob, files=files), lambda: deploy(users.bob, files)]
    for attempt in attempts:
        with pytest.raises(LongshoreError) as refused:
            attempt()
        assert refused.value.reason == Reason.MISSING_UPLOADS
        assert file.digest in str(refused.value)
    upload(users.bob, tmp_path / "bob")
    assert state(users.bob, file.digest) == (True, len(CONTENT))
    assert build(users.bob, files=files).id
    assert deploy(users.bob, files).id
    assert stored(users, len(CONTENT)) == 1


def test_an_archive_of_another_user_is_missing_too(users: Users, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"packed")
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        tar.add(tmp_path / "model.bin", "model.bin")
    source = archive_source(tmp_path / "files.tar")
    users.alice.upload([source])
    with pytest.raises(LongshoreError) as refused:
        build(users.bob, archive=source.entry.digest)
    assert refused.value.reason == Reason.MISSING_UPLOADS
    users.bob.upload([source])
    assert build(users.bob, archive=source.entry.digest).id
    # What was in it is not his as a file of its own, since he may have it from elsewhere than by having it.
    assert state(users.bob, collect(tmp_path, ["model.bin"])[0].entry.digest) == (False, 0)


def test_an_administrator_builds_from_what_anybody_has_uploaded(users: Users, tmp_path: Path) -> None:
    files = upload(users.alice, tmp_path / "alice", b"for administrators too")
    assert state(users.admin, files[0].digest)[0]
    assert build(users.admin, files=files).id
