"""What does not fit together is refused with a reason, and with what is possible."""

import pytest

from controller.builds.targets import TargetProfile, load_profiles
from controller.errors import InvalidSpec, Problem
from controller.spec.loader import load_spec

SPEC = """\
version: 1
name: digits
build: {BUILD}
deploy:
  entrypoint: [python, server.py]
  network: {ports: [{name: http, container: 8080}]}
targets:
  - TARGET
"""


def problems(build: str = "", target: str = "profile: x86-cpu") -> list[Problem]:
    text = SPEC.replace("BUILD", build).replace("TARGET", target)
    try:
        load_spec(text.encode(), load_profiles())
    except InvalidSpec as refusal:
        return refusal.problems
    return []


def only(build: str = "", target: str = "profile: x86-cpu") -> Problem:
    (problem,) = problems(build, target)
    return problem


def test_tensorrt_on_a_cpu_board_is_refused_with_what_is_possible_there() -> None:
    problem = only("runtime: {kind: tensorrt}", "profile: raspberry-pi-5")
    assert (problem.path, problem.line, problem.column) == ("build.runtime.kind", 3, 25)
    assert problem.message == (
        "tensorrt does not run on raspberry-pi-5 (Raspberry Pi 5 with a 64-bit system); possible there: python, "
        "tflite, onnx, pytorch; tensorrt runs on: jetson-nano, jetson-orin, jetson-xavier, x86-cuda"
    )


@pytest.mark.parametrize(
    ("profile", "engines"),
    [
        ("jetson-orin", "pytorch tensorrt"),
        ("jetson-xavier", "pytorch tensorrt"),
        ("jetson-nano", "pytorch tensorrt"),
        ("odroid-n2", "tvm acl"),
        ("odroid-m1", "rknn"),
        ("raspberry-pi-5", "tflite"),
        ("comma-3x", "pytorch onnx"),
        ("x86-cuda", "tensorrt onnx pytorch"),
    ],
)
def test_every_board_takes_the_engines_that_it_is_known_for(profile: str, engines: str) -> None:
    for kind in engines.split():
        path = ", path: m.onnx" if kind == "onnx" else ""
        assert problems(f"runtime: {{kind: {kind}{path}}}", f"profile: {profile}") == []


def test_an_unknown_distribution_names_those_of_the_profile() -> None:
    problem = only("distribution: debian-bokworm")
    assert problem.path == "build.distribution"
    assert "the target profile x86-cpu has no distribution 'debian-bokworm'; did you mean 'debian-bookworm'?" in (
        problem.message
    )
    assert "it has: debian-bookworm, debian-trixie, ubuntu-jammy" in problem.message
    assert problems("distribution: debian-bookworm") == []


def test_base_and_distribution_exclude_each_other() -> None:
    problem = only("base: docker.io/library/debian:12, distribution: debian-bookworm")
    assert (problem.path, problem.message) == ("build.distribution", "expected either base or distribution, not both")


def test_a_base_has_one_package_manager() -> None:
    found = problems("packages: {apk: [curl], apt: [curl], dnf: [curl]}")
    assert sorted(problem.path for problem in found) == ["build.packages.apk", "build.packages.dnf"]
    assert "packages.apt is given" in found[0].message


@pytest.mark.parametrize(
    ("build", "path"),
    [
        ("packages: {dnf: [curl]}", "build.packages.dnf"),
        ("packages: {apk: [curl]}", "build.packages.apk"),
        ("packages: {conda: {packages: [numpy]}}", "build.packages.conda"),
        ("steps: [make]", "build.steps"),
        ("secrets: [token]", "build.secrets"),
        ("volumes: [/data]", "build.volumes"),
    ],
)
def test_what_cannot_be_in_a_bundle_is_refused_with_a_reason(build: str, path: str) -> None:
    problem = only(build, "{profile: x86-cpu, artifact: bundle}")
    assert problem.path == path
    assert problem.message.startswith("cannot be in a bundle, which targets[0] asks for: ")
    assert problems(build) == []


def test_a_bundle_needs_an_entrypoint_although_a_base_is_given() -> None:
    text = SPEC.replace("BUILD", "base: docker.io/library/debian:12").replace("  entrypoint: [python, server.py]\n", "")
    with pytest.raises(InvalidSpec) as caught:
        load_spec(text.replace("TARGET", "{profile: x86-cpu, artifact: bundle}").encode(), load_profiles())
    assert [problem.path for problem in caught.value.problems] == ["deploy.entrypoint"]


def test_a_profile_that_takes_no_bundles_is_refused_for_one() -> None:
    problem = only(target="{profile: jetson-nano, artifact: bundle}")
    assert (problem.path, problem.line) == ("targets[0].artifact", 8)
    assert problem.message == "jetson-nano takes no bundle; expected image"


@pytest.mark.parametrize("label", ["dev.longshore.name", "org.opencontainers.image.title"])
def test_labels_that_the_builder_sets_are_not_a_users(label: str) -> None:
    problem = only(f"labels: {{{label}: x}}")
    assert problem.line == 3
    assert f"'{label}' is set by the builder" in problem.message


@pytest.mark.parametrize(
    "tag",
    [
        f"sha256-{'0a' * 32}",
        f"sha256-{'0A' * 32}.sig",
        "b-0123456789abcdef",
        "b-0123456789abcdef.x86-cpu",
        "v1.x86-cpu.bundle",
    ],
)
def test_tags_that_the_builder_sets_are_not_a_users(tag: str) -> None:
    problem = only(f"tags: [v1, {tag}]")
    assert (problem.path, problem.line) == ("build.tags[1]", 3)
    assert "take another tag" in problem.message


def test_tags_that_only_begin_alike_are_a_users() -> None:
    assert problems("tags: [b-1, b-0123456789abcdefg, sha256-of-nothing]") == []


def test_a_tag_has_room_for_what_stands_behind_it_in_a_bundles() -> None:
    room = 128 - len(".x86-cpu.bundle")
    bundle = "{profile: x86-cpu, artifact: bundle}"
    assert problems(f"tags: [{'v' * room}]", bundle) == []
    problem = only(f"tags: [v1, {'v' * (room + 1)}]", bundle)
    assert (problem.path, problem.line) == ("build.tags[1]", 3)
    assert problem.message == (
        f"longer than {room} characters, and the bundle of targets[0] has .x86-cpu.bundle behind it; take a shorter tag"
    )
    assert problems(f"tags: [{'v' * 128}]") == []


def test_labels_about_the_source_are_a_users() -> None:
    assert problems("labels: {org.opencontainers.image.source: x, com.example.team: vision}") == []


def test_a_time_of_creation_is_a_time() -> None:
    label = "org.opencontainers.image.created"
    for time in ("1714564800", '"2024-05-01T12:00:00Z"', "2024-05-01T12:00:00+02:00"):
        assert problems(f"labels: {{{label}: {time}}}") == []
    problem = only(f"labels: {{{label}: yesterday}}")
    assert (problem.line, problem.path) == (3, f"build.labels.{label}")
    assert problem.message == "expected a time such as 2024-05-01T12:00:00Z, or seconds since 1970"


def test_an_accelerator_that_the_profile_does_not_have_is_refused() -> None:
    minimum = "minimum: {accelerators: {nvidia.com/gpu: 1}}"
    assert problems(minimum, "profile: x86-cuda") == []
    problem = only(minimum)
    assert "no device of x86-cpu has nvidia.com/gpu: the profile has no accelerator" in problem.message


def test_a_platform_stands_for_its_profile() -> None:
    text = SPEC.replace("BUILD", "").replace("TARGET", "platform: linux/arm64")
    (target,) = load_spec(text.encode(), load_profiles()).targets
    assert (target.profile, target.platform, target.key) == ("arm64-cpu", None, "arm64-cpu")


def test_an_unknown_platform_is_refused_at_its_place() -> None:
    problem = only(target="platform: linux/amd46")
    assert (problem.path, problem.line, problem.column) == ("targets[0].platform", 8, 15)
    assert problem.message == (
        "expected linux/amd64 or linux/arm64 or linux/arm/v7, not 'linux/amd46'; did you mean 'linux/amd64'?"
    )


def test_profile_and_platform_exclude_each_other() -> None:
    problem = only(target="{profile: x86-cpu, platform: linux/amd64}")
    assert (problem.path, problem.message) == ("targets[0].platform", "expected either profile or platform, not both")


def test_a_platform_and_its_profile_are_the_same_target() -> None:
    (problem,) = problems(target="{platform: linux/amd64}\n  - {profile: x86-cpu}")
    assert (problem.path, problem.message) == ("targets[1]", "the same target is given twice")


def test_a_profile_fits_what_a_spec_asks_of_one() -> None:
    assert isinstance(load_profiles()["x86-cpu"], TargetProfile)
    assert all("python" in profile.engines for profile in load_profiles().values())


def test_a_wrong_field_hides_nothing_that_is_wrong_between_the_others() -> None:
    build = "runtime: {kind: tensorrt}, minimum: {cpu: 0}"
    found = problems(build, "{profile: x86-cpu}\n  - {profile: x86-cpu, artifact: bundel}")
    assert [problem.path for problem in found] == ["build.runtime.kind", "build.minimum.cpu", "targets[1].artifact"]


@pytest.mark.parametrize("runtime", ["onnx", "{kind: [onnx]}", "{kind: onnx, path: ../x.onnx}"])
def test_a_runtime_that_cannot_be_read_is_the_only_problem(runtime: str) -> None:
    text = f"version: 1\nname: digits\nbuild: {{runtime: {runtime}}}\ntargets: [{{profile: x86-cpu}}]\n"
    with pytest.raises(InvalidSpec) as caught:
        load_spec(text.encode(), load_profiles())
    (problem,) = caught.value.problems
    assert problem.path.startswith("build.runtime")
