"""Two requests have the same key exactly where their artifacts are the same."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.builds.cache_key import NOT_OF_BUILD, OF_DEPLOY, cache_key
from controller.builds.model import ArtifactKind, ContextFile, TargetJob
from controller.builds.targets import load_profiles
from controller.sealing import SecretBox
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec, Spec

ROOT = Path(__file__).resolve().parents[2]
FILE = ContextFile("model/a.onnx", "sha256:" + "a" * 64, 10)
OTHER = ContextFile("server.py", "sha256:" + "b" * 64, 20)
PROFILE = load_profiles()["x86-cpu"]
# One change of each field that the artifact depends on.
CHANGES: dict[str, Any] = {
    "base": "debian:trixie", "distribution": "debian-trixie", "runtime": {"kind": "python"},
    "packages": {"pypi": ["flask"]}, "files": ["other"], "workdir": "/srv", "steps": ["true"], "secrets": ["token"],
    "environment": {"A": "1"}, "labels": {"a": "1"}, "volumes": ["/data"], "allow_root": True, "minimum": {"cpu": 1.0},
}  # fmt: skip
JOB = TargetJob(
    "b-1", "alice", "vision", "digits", "x86-cpu", BuildSpec(), "registry:5000/alice/vision/digits",
    DeploySpec(entrypoint=["python3"]), (FILE, OTHER), ArtifactKind.IMAGE, "x86-cpu", {"token": b"1"},
)  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> SecretBox:
    return SecretBox(tmp_path / "key")


def changed_build(**fields: Any) -> TargetJob:
    return replace(JOB, spec=BuildSpec.model_validate(fields))


def test_every_field_of_build_is_in_the_key_or_is_known_not_to_matter() -> None:
    assert set(CHANGES) | NOT_OF_BUILD == set(BuildSpec.model_fields)


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_a_field_of_build_changes_the_key(field: str, box: SecretBox) -> None:
    assert cache_key(changed_build(**{field: CHANGES[field]}), PROFILE, box) != cache_key(JOB, PROFILE, box)


@pytest.mark.parametrize(
    "other",
    [
        replace(JOB, user_id="bob"),
        replace(JOB, project_id="other"),
        replace(JOB, name="letters"),
        replace(JOB, repository="registry:5000/alice/vision/letters"),
        replace(JOB, kind=ArtifactKind.BUNDLE),
        replace(JOB, files=(FILE,)),
        replace(JOB, files=(FILE, replace(OTHER, executable=True))),
        replace(JOB, files=(FILE, replace(OTHER, digest="sha256:" + "c" * 64))),
        replace(JOB, files=(FILE, replace(OTHER, path="serve.py"))),
        replace(JOB, secrets={"token": b"2"}),
        replace(JOB, secrets={}),
        replace(JOB, deploy=DeploySpec(entrypoint=["python"])),
    ],
)
def test_a_change_of_another_input_changes_the_key(other: TargetJob, box: SecretBox) -> None:
    assert cache_key(other, PROFILE, box) != cache_key(JOB, PROFILE, box)


def test_another_profile_has_another_key(box: SecretBox) -> None:
    moved = PROFILE.model_copy(update={"base": "docker.io/library/debian:trixie"})
    assert cache_key(JOB, moved, box) != cache_key(JOB, PROFILE, box)


def test_what_does_not_enter_the_artifact_does_not_matter(box: SecretBox) -> None:
    spec = BuildSpec.model_validate({"timeout": "1h", "tags": ["latest"], "push": False, "image": "other"})
    deploy = DeploySpec.model_validate({"entrypoint": ["python3"], "mounts": [{"src": "/a", "dst": "/b"}]})
    same = replace(JOB, build_id="b-2", spec=spec, deploy=deploy)
    assert cache_key(same, PROFILE, box) == cache_key(JOB, PROFILE, box)


def test_order_does_not_matter(box: SecretBox) -> None:
    one = changed_build(environment={"A": "1", "B": "2"})
    other = changed_build(environment={"B": "2", "A": "1"})
    assert cache_key(one, PROFILE, box) == cache_key(replace(other, files=(OTHER, FILE)), PROFILE, box)


def test_a_secret_cannot_be_guessed_from_the_key(tmp_path: Path, box: SecretBox) -> None:
    assert cache_key(JOB, PROFILE, SecretBox(tmp_path / "other")) != cache_key(JOB, PROFILE, box)


def test_builders_read_nothing_of_deploy_that_is_not_in_the_key() -> None:
    assert set(Spec.model_fields["deploy"].annotation.model_fields) >= OF_DEPLOY  # type: ignore[union-attr]
    read = {
        (node.attr, path.name)
        for path in (ROOT / "controller" / "builds").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name)
        and (node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id) == "deploy"
    }  # fmt: skip
    assert {attribute for attribute, _ in read if attribute != "model_dump"} <= OF_DEPLOY, read
    assert read
