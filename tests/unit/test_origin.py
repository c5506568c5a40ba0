"""What artifacts say of their inputs: the same for the same inputs, and what the spec says goes first."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.bundles.description import describe, labels, manifest
from controller.builds.image_labels import image_labels
from controller.builds.joining import annotations_of
from controller.builds.model import ArtifactKind, Build, ContextFile, TargetJob
from controller.builds.origin import LONG_AGO, REVISION, SOURCE, origin
from controller.builds.requirements import Requirements
from controller.builds.targets import load_profiles
from controller.spec.build_rules import CREATED
from controller.spec.deploy_model import DeploySpec
from controller.spec.loader import load_spec
from controller.spec.model import BuildSpec
from controller.spec.moments import moment

FILES = (ContextFile("a.py", "sha256:a", 1), ContextFile("b.py", "sha256:b", 2))
SPEC = b"""\
version: 1
name: digits
build: {files: [a.py, b.py], tags: [v1]}
deploy: {entrypoint: [python3, a.py], checks: {readiness: {command: {command: ["true"]}}}}
targets: [{profile: x86-cpu}, {profile: arm64-cpu}, {profile: x86-cpu, artifact: bundle}]
"""


def of(build: dict[str, Any], deploy: dict[str, Any] | None = None, files: Any = FILES) -> dict[str, str]:
    return origin(BuildSpec.model_validate(build), DeploySpec.model_validate(deploy or {}), files)


def test_without_a_word_of_the_spec_the_revision_is_a_digest_of_the_inputs() -> None:
    found = of({})
    assert found == {CREATED: LONG_AGO, REVISION: found[REVISION]}
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found[REVISION])


@pytest.mark.parametrize(
    ("build", "deploy", "files"),
    [
        ({"packages": {"pypi": ["flask"]}}, {}, FILES),
        ({"labels": {"team": "vision"}}, {}, FILES),
        ({}, {"entrypoint": ["python3"]}, FILES),
        ({}, {}, FILES[:1]),
        ({}, {}, (FILES[0], replace(FILES[1], digest="sha256:c"))),
        ({}, {}, (FILES[0], replace(FILES[1], path="c.py"))),
        ({}, {}, (FILES[0], replace(FILES[1], executable=True))),
    ],
)
def test_other_inputs_are_another_revision(build: dict[str, Any], deploy: dict[str, Any], files: Any) -> None:
    assert of(build, deploy, files)[REVISION] != of({})[REVISION]


@pytest.mark.parametrize(
    ("build", "deploy", "files"),
    [
        ({"tags": ["v2"], "timeout": "1h", "push": False, "image": "other"}, {}, FILES),
        ({"workdir": "/app", "steps": []}, {}, FILES),
        ({}, {"resources": {"cpu": 1}, "restart": "never"}, FILES),
        ({"files": ["."]}, {}, FILES),
        ({}, {}, FILES[::-1]),
    ],
)
def test_what_enters_no_artifact_is_no_other_revision(
    build: dict[str, Any], deploy: dict[str, Any], files: Any
) -> None:
    assert of(build, deploy, files) == of({})


def test_order_that_makes_no_other_artifact_is_no_other_revision() -> None:
    ports = [{"name": name, "container": number, "host": "auto"} for name, number in (("a", 1), ("b", 2))]
    one = of({"volumes": ["/a", "/b"], "secrets": ["a", "b"]}, {"network": {"ports": ports}})
    ports = [{**port, "host": 9} for port in ports[::-1]]
    assert of({"volumes": ["/b", "/a"], "secrets": ["b", "a"]}, {"network": {"ports": ports}}) == one != of({})


def test_what_the_spec_says_goes_before() -> None:
    told = {SOURCE: "https://git.example/digits", REVISION: "4f1c2d", CREATED: "2024-05-01T14:00:00.5+02:00"}
    assert of({"labels": told}) == {**told, CREATED: "2024-05-01T12:00:00Z"}


def test_a_preview_without_contents_has_no_revision() -> None:
    assert of({}, files=(replace(FILES[0], digest=""),)) == {CREATED: LONG_AGO}
    assert REVISION in of({}, files=())


def test_all_artifacts_of_a_request_have_the_same_origin() -> None:
    spec = load_spec(SPEC)
    job = TargetJob(
        "b-1", "alice", "vision", spec.name, "x86-cpu", spec.build, "r:5000/a", spec.deploy, FILES, target="x86-cpu"
    )
    bundle = replace(job, kind=ArtifactKind.BUNDLE, target="x86-cpu.bundle")
    build = Build("b-2", "alice", "vision", spec.name, SPEC, FILES[::-1], (), 0.0)
    wanted = origin(spec.build, spec.deploy, FILES)
    for said in (image_labels(job, "b", ""), image_labels(replace(job, profile="arm64-cpu"), "b", ""), labels(bundle)):
        assert wanted.items() <= said.items()
        assert said["dev.longshore.project"] == "vision"
    joined = annotations_of(build)
    assert wanted.items() <= joined.items()
    assert joined["dev.longshore.project"] == "vision"


def test_the_description_of_a_bundle_does_not_change_with_its_code() -> None:
    spec = load_spec(SPEC)
    made = []
    for digest, time in (("sha256:b", "1"), ("sha256:c", "2")):
        told = spec.build.model_copy(update={"labels": {CREATED: time, SOURCE: "https://git.example/digits"}})
        files = (FILES[0], replace(FILES[1], digest=digest))
        job = TargetJob("b-1", "alice", "vision", spec.name, "x86-cpu", told, "r:5000/a", spec.deploy, files)
        made.append((describe(job, load_profiles()["x86-cpu"], Requirements(), []), labels(job)))
    (first, before), (second, after) = made
    assert first == second
    assert first["labels"][SOURCE] == "https://git.example/digits"
    assert before[REVISION] != after[REVISION]
    configs, bodies = zip(*(manifest(described, said, []) for described, said in made), strict=True)
    assert configs[0] == configs[1]
    assert bodies[0] != bodies[1]


def test_an_index_of_a_spec_that_is_no_longer_accepted_is_joined_all_the_same() -> None:
    build = Build("b-1", "alice", "vision", "digits", b"version: 0", FILES, (), 0.0)
    assert annotations_of(build)["dev.longshore.project"] == "vision"


times = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30))
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(times, zones)
def test_a_moment_is_the_same_however_it_is_written(time: datetime, zone: timezone) -> None:
    wanted = time.replace(microsecond=0).isoformat() + "Z"
    aware = time.replace(tzinfo=UTC)
    assert moment(aware.astimezone(zone).isoformat()) == wanted
    assert moment(str(int(aware.replace(microsecond=0).timestamp()))) == wanted
    assert moment(wanted) == wanted


@pytest.mark.parametrize(
    "text", ["", "now", "2024-05-01", "2024-05-01T12:00:00", "2024-13-01T12:00:00Z", "-1", "9" * 12, "1.5", "1e3"]
)
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 2024-05-01T12:00:00Z, or seconds since 1970"):
        moment(text)
