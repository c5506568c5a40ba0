"""Project volumes from the command line and the client to a real registry, and back."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore.client import Client, project
from longshore.failures import LongshoreError
from longshore.v1 import types_pb2
from tests.support.sync_stack import SyncStack, running_stack

MIB = 2**20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as made:
        yield made


@pytest.fixture
def client(stack: SyncStack) -> Iterator[Client]:
    with stack.client() as made:
        yield made


@pytest.fixture
def mine(request: pytest.FixtureRequest) -> types_pb2.Project:
    """Each test has a project of its own."""
    return project("alice", request.node.name.replace("_", "-")[-60:].strip("-"))


def model(folder: Path) -> Path:
    """A folder with two large files and two small ones."""
    (folder / "model").mkdir(parents=True)
    for name in ("weights.bin", "encoder.bin"):
        (folder / "model" / name).write_bytes(os.urandom(3 * MIB))
    (folder / "labels.txt").write_text("0\n1\n")
    (folder / "model" / "notes.txt").write_text("trained on Monday\n")
    return folder


def stored(stack: SyncStack) -> set[str]:
    """Digests of all that the registry holds."""
    blobs = stack.stack.folder.root / "registry/data/docker/registry/v2/blobs/sha256"
    return {path.parent.name for path in blobs.glob("??/*/data")}


def test_pushing_again_is_the_same_version_and_a_change_sends_the_change_alone(
    stack: SyncStack, client: Client, mine: types_pb2.Project, tmp_path: Path
) -> None:
    folder = model(tmp_path)
    first = client.push_volume("digits-model", mine, [folder])
    assert first.sent_bytes > 6 * MIB
    assert (first.version.files, first.version.latest) == (4, True)
    again = client.push_volume("digits-model", mine, [folder])
    assert (again.version.digest, again.sent_bytes) == (first.version.digest, 0)

    content = os.urandom(2 * MIB)
    (folder / "model" / "weights.bin").write_bytes(content)
    second = client.push_volume("digits-model", mine, [folder])
    assert second.version.digest != first.version.digest
    # The file, and the description.
    assert 2 * MIB <= second.sent_bytes < 2 * MIB + 10_000
    assert hashlib.sha256(content).hexdigest() in stored(stack)
    versions = list(client.list_volumes(mine))
    assert [(one.digest, one.latest) for one in versions] == [
        (second.version.digest, True), (first.version.digest, False),
    ]  # fmt: skip
    # What is pushed last is the latest, also where it was there before.
    (folder / "model" / "weights.bin").write_bytes(b"")
    back = client.push_volume("digits-model", mine, [folder])
    assert client.get_volume(mine, "digits-model").version.digest == back.version.digest


def test_a_version_is_deleted_and_others_stay(client: Client, mine: types_pb2.Project, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1")
    first = client.push_volume("labels", mine, [tmp_path / "labels.txt"]).version
    (tmp_path / "labels.txt").write_text("2")
    second = client.push_volume("labels", mine, [tmp_path / "labels.txt"]).version
    client.delete_volume(mine, "labels", first.digest)
    assert [one.digest for one in client.list_volumes(mine, name="labels")] == [second.digest]
    with pytest.raises(LongshoreError) as refused:
        client.get_volume(mine, "labels", first.digest)
    assert refused.value.reason == "NO_SUCH_VOLUME"
    client.delete_volume(mine, "labels")
    assert list(client.list_volumes(mine)) == []


def test_what_makes_no_volume_is_refused(client: Client, mine: types_pb2.Project, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1")
    with pytest.raises(LongshoreError, match="lower-case letters"):
        client.push_volume("Labels", mine, [tmp_path / "labels.txt"])
    with pytest.raises(LongshoreError, match="at least one file"):
        client.push_volume("labels", mine, [])
    with pytest.raises(LongshoreError, match="no such file"):
        client.push_volume("labels", mine, [tmp_path / "other.txt"])


def test_a_registry_that_is_away_is_told_and_the_push_is_made_again(
    stack: SyncStack, client: Client, mine: types_pb2.Project, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("away")
    stack.stop_registry()
    try:
        with stack.client(patience=0) as hasty, pytest.raises(LongshoreError) as refused:
            hasty.push_volume("labels", mine, [tmp_path / "labels.txt"])
        assert refused.value.reason == "REGISTRY_UNREACHABLE"
        assert list(client.list_volumes(mine)) == []
    finally:
        stack.start_registry()
    assert client.push_volume("labels", mine, [tmp_path / "labels.txt"]).version.latest


def test_the_command_pushes_lists_shows_and_deletes(stack: SyncStack, tmp_path: Path) -> None:
    folder = model(tmp_path)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LONGSHORE_")}
    environment = {**kept, "LONGSHORE_CONTEXT": str(stack.context_file), "LONGSHORE_PROJECT": "commands"}

    def longshore(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "controller.cli.main", "volume", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    assert "(4 files, 6.0 MiB of 6.0 MiB were new)" in longshore("push", "digits-model", str(folder))
    digest = longshore("push", "digits-model", str(folder), "-o", "name").strip()
    (entry,) = json.loads(longshore("list", "-o", "json"))
    assert (entry["digest"], entry["size_bytes"]) == (digest, str(6 * MIB + 22))
    assert digest in longshore("show", "digits-model")
    assert "no volume other" in longshore("show", "other", code=1)
    assert longshore("delete", "digits-model") == "digits-model is deleted\n"
    assert longshore("list", "-o", "name") == ""
