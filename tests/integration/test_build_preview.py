"""What would be built, asked of a real controller: texts of a spec, and whole contexts of builds."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.settings import Builds
from longshore.client import Client, project
from longshore.failures import LongshoreError
from longshore.v1 import build_pb2, types_pb2
from tests.support.building import BASE_CACHE, SMALL_BASE
from tests.support.containerfile import parse
from tests.support.sync_stack import SyncStack, running_stack

PROJECT = project("alice", "previews")
# No registry of this name exists: a build of it is tried again and again, and no test waits for it.
SPEC = """\
version: 1
name: digits
build:
  base: registry.invalid/nothing:1
  files: [model]
  packages: {pypi: [flask]}
  labels: {team: "a \\"b\\""}
deploy:
  entrypoint: [python3, model/serve.py]
  environment: {UNSEEN: "1"}
  network: {ports: [{name: http, container: 8080}]}
targets:
  - profile: x86-cpu
  - profile: arm64-cpu
  - {profile: x86-cpu, artifact: bundle}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), Builds(base_cache=BASE_CACHE)) as made:
        yield made


@pytest.fixture
def client(stack: SyncStack) -> Iterator[Client]:
    with stack.client() as made:
        yield made


def written(folder: Path, text: str = SPEC) -> Path:
    path = folder / "deployment.yml"
    path.write_text(text)
    (folder / "model").mkdir()
    (folder / "model" / "serve.py").write_text("print()\n")
    (folder / "model" / "weights.bin").write_bytes(os.urandom(9_000_000))
    return path


def test_each_target_of_a_spec_is_shown_and_nothing_is_stored(client: Client, tmp_path: Path) -> None:
    rendered = client.render_build(written(tmp_path), PROJECT)
    assert [one.key for one in rendered] == ["x86-cpu", "arm64-cpu", "x86-cpu.bundle"]
    assert [one.platform for one in rendered] == ["linux/amd64", "linux/arm64", "linux/amd64"]
    assert [one.kind for one in rendered] == [types_pb2.ARTIFACT_KIND_IMAGE] * 2 + [types_pb2.ARTIFACT_KIND_BUNDLE]
    instructions = {one.keyword: one for one in parse(rendered[0].text)}
    assert instructions["FROM"].text == "registry.invalid/nothing:1"
    labels = dict(instructions["LABEL"].pairs())
    assert labels["team"] == 'a "b"'
    # What is in the files is not known yet.
    assert "org.opencontainers.image.revision" not in labels
    assert "# pypi: flask" in rendered[0].text
    bundle = yaml.safe_load(rendered[2].text)
    assert (bundle["packages"], bundle["entrypoint"]) == (["flask"], ["python3", "model/serve.py"])
    assert any("another architecture" in note for note in rendered[1].notes)
    assert list(client.list_builds(PROJECT)) == []
    assert rendered == client.render_build(tmp_path / "deployment.yml", PROJECT)


def test_a_wrong_spec_is_refused_as_by_a_build(client: Client, tmp_path: Path) -> None:
    path = written(tmp_path, SPEC.replace("profile: x86-cpu\n", "profile: x86-cp\n"))
    with pytest.raises(LongshoreError) as caught:
        client.render_build(path, PROJECT)
    assert caught.value.invalid
    assert caught.value.problems[0].line == 13


@pytest.mark.podman
def test_the_context_of_a_target_is_all_that_podman_needs_and_always_the_same(client: Client, tmp_path: Path) -> None:
    path = written(tmp_path, SPEC.replace("registry.invalid/nothing:1", SMALL_BASE))
    build = client.build(path, PROJECT, files=["model"])
    client.cancel_build(build.id)
    for name in ("one", "other"):
        client.download_build_context(build.id, tmp_path / name, target="x86-cpu")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    with tarfile.open(tmp_path / "one") as archive:
        assert archive.getnames() == [
            "Containerfile", "files", "files/model", "files/model/serve.py", "large", "large/00", "large/00/model",
            "large/00/model/weights.bin", "packages", "packages/pypi.txt", "packages/python3.sh",
        ]  # fmt: skip
        weights = archive.extractfile("large/00/model/weights.bin")
        assert weights is not None
        assert weights.read() == (tmp_path / "model" / "weights.bin").read_bytes()
        assert archive.getmember("Containerfile").mtime == 0


@pytest.mark.podman
def test_a_context_that_stands_on_a_base_out_of_reach_may_be_had_later(client: Client, tmp_path: Path) -> None:
    build = client.build(written(tmp_path), PROJECT, files=["model"])
    client.cancel_build(build.id)
    with pytest.raises(LongshoreError) as caught:
        client.download_build_context(build.id, tmp_path / "context", target="x86-cpu")
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "CONTEXT_UNAVAILABLE")
    assert "registry.invalid/nothing:1" in caught.value.message


def test_a_target_that_is_not_one_of_the_builds_images_is_refused(client: Client, tmp_path: Path) -> None:
    build = client.build(written(tmp_path), PROJECT, files=["model"])
    client.cancel_build(build.id)
    for target, code in (
        ("", "INVALID_ARGUMENT"),
        ("jetson-orin", "NOT_FOUND"),
        ("x86-cpu.bundle", "INVALID_ARGUMENT"),
    ):
        with pytest.raises(LongshoreError) as caught:
            client.download_build_context(build.id, tmp_path / "context", target=target)
        assert caught.value.code == code
        assert target == "x86-cpu.bundle" or "x86-cpu, arm64-cpu, x86-cpu.bundle" in caught.value.message
    assert not (tmp_path / "context").exists()
    client.cancel_build(build.id)


def test_a_build_whose_files_are_gone_has_no_context(stack: SyncStack, client: Client, tmp_path: Path) -> None:
    build = client.build(written(tmp_path), PROJECT, files=["model"])
    for content in (stack.stack.folder.root / "uploads" / "complete").glob("*/*"):
        if content.stat().st_size == 9_000_000:
            content.unlink()
    with pytest.raises(LongshoreError) as caught:
        client.download_build_context(build.id, tmp_path / "context", target="x86-cpu")
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "MISSING_UPLOADS")
    client.cancel_build(build.id)


def test_a_file_of_an_older_form_is_taken_and_the_answers_say_what_was_understood(
    client: Client, tmp_path: Path
) -> None:
    older = (
        "build: {architecture: arm, image_uri: 'registry.invalid/nothing:1'}\ndeploy: {type: docker, name: Old One}\n"
    )
    path = tmp_path / "deployment.yaml"
    path.write_text(older)
    applied = client.deploy(path, PROJECT)
    assert applied.deployment.name == "old-one"
    (target,) = client.get_build(applied.deployment.build_id).targets
    assert target.profile == "arm64-cpu"
    told = [(warning.path, warning.line, warning.column) for warning in applied.warnings]
    assert ("deploy.name", 2, 30) in told
    rendered = client._call(
        client._builds.RenderBuild,
        build_pb2.RenderBuildRequest(project=PROJECT, spec=older.encode()),
        build_pb2.RenderBuildResponse,
    )
    assert list(rendered.warnings) == list(applied.warnings)
    made = client._call(
        client._builds.CreateBuild,
        build_pb2.CreateBuildRequest(project=PROJECT, spec=older.encode()),
        build_pb2.CreateBuildResponse,
    )
    assert list(made.warnings) == list(applied.warnings)
