"""What a job asks for: packages of spec and runtime, labels, layers of files."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.layers import LARGE_BYTES, MOST_LARGE, file_layers
from controller.builds.model import BuildFailed, ContextFile, TargetJob
from controller.builds.plan import plan_image
from controller.builds.prepare import Prepared
from controller.builds.requirements import base_of, requirements_of
from controller.builds.targets import load_profiles
from controller.rendering import CannotQuote
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec, Packages
from controller.spec.runtimes import RuntimeKind, load_runtimes

CPU = load_profiles()["x86-cpu"]
BASE = "docker.io/library/python:3.11-slim-bookworm"


def job(spec: dict[str, Any], deploy: dict[str, Any] | None = None, **more: Any) -> TargetJob:
    made = TargetJob(
        build_id="b1", user_id="alice", project_id="vision", name="digits", profile="x86-cpu",
        spec=BuildSpec.model_validate(spec), deploy=DeploySpec.model_validate(deploy or {}), repository="r/a/digits",
    )  # fmt: skip
    return replace(made, **more)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> RuntimeKind:
    """A runtime "onnx" of known content."""
    kind = RuntimeKind(
        name="onnx",
        description="for tests",
        packages=Packages(apt=["libgomp1"], pypi=["onnxruntime>=1.20,<2", "flask"]),
        accelerated={"nvidia.com/gpu": Packages(pypi=["onnxruntime-gpu"])},
        environment={"MODEL": "runtime", "PORT": "1"},
        thread_variables=("OMP_NUM_THREADS",),
    )
    monkeypatch.setattr("controller.builds.requirements.load_runtimes", lambda: {**load_runtimes(), "onnx": kind})
    return kind


def test_packages_of_the_runtime_come_behind_those_of_the_spec(runtime: RuntimeKind) -> None:
    packages = {"apt": ["curl"], "pypi": ["numpy", "numpy", "Flask==2.0"]}
    found = requirements_of(job({"runtime": {"kind": "onnx"}, "packages": packages}), CPU)
    assert found.apt == ("curl", "libgomp1")
    # Of the two versions of Flask the spec's counts, whatever its spelling.
    assert found.pypi == ("numpy", "Flask==2.0", "onnxruntime>=1.20,<2")


def test_an_accelerator_has_packages_of_its_own(runtime: RuntimeKind) -> None:
    cuda = load_profiles()["x86-cuda"]
    assert cuda.accelerator is not None
    found = requirements_of(job({"runtime": {"kind": "onnx"}}), cuda)
    assert found.pypi == ("onnxruntime-gpu",)


def test_a_base_without_apt_gets_no_apt_packages_of_the_runtime(runtime: RuntimeKind) -> None:
    spec = {"base": "alpine:3.20", "runtime": {"kind": "onnx"}, "packages": {"apk": ["libgomp"]}}
    found = requirements_of(job(spec), CPU)
    assert (found.apt, found.apk) == ((), ("libgomp",))


def test_what_the_profiles_base_brings_is_not_installed(runtime: RuntimeKind) -> None:
    profile = CPU.model_copy(update={"provides": ("onnx",)})
    assert requirements_of(job({"runtime": {"kind": "onnx"}}), profile).pypi == ()
    assert plan_image(job({"runtime": {"kind": "onnx"}}), profile, BASE).system_site_packages
    assert requirements_of(job({"base": "debian:12", "runtime": {"kind": "onnx"}}), profile).pypi != ()


def test_the_specs_environment_wins_over_the_runtimes(runtime: RuntimeKind) -> None:
    profile = CPU.model_copy(update={"environment": {"PORT": "0", "PROFILE": "x"}})
    plan = plan_image(job({"runtime": {"kind": "onnx"}, "environment": {"MODEL": "spec"}}), profile, BASE)
    assert dict(plan.environment) == {"MODEL": "spec", "PORT": "1", "PROFILE": "x"}


def test_indexes_of_the_spec_are_asked_before_those_of_the_profile() -> None:
    profile = CPU.model_copy(update={"pypi_indexes": ("https://profile.example/",)})
    spec = {"packages": {"pypi": ["a"], "pypi_indexes": ["https://spec.example/"]}}
    assert requirements_of(job(spec), profile).pypi_indexes == ("https://spec.example/", "https://profile.example/")


@pytest.mark.parametrize(
    ("spec", "base"),
    [({}, CPU.base), ({"base": "debian:12"}, "debian:12"), ({"distribution": "here"}, "example/here:1")],
)
def test_the_base_is_the_specs_or_that_of_its_distribution_or_the_profiles(spec: dict[str, Any], base: str) -> None:
    profile = CPU.model_copy(update={"bases": {"here": "example/here:1"}})
    assert base_of(BuildSpec.model_validate(spec), profile) == base


def test_a_distribution_that_the_profile_has_not_is_refused_with_the_choices() -> None:
    profile = CPU.model_copy(update={"bases": {"here": "example/here:1"}})
    with pytest.raises(BuildFailed, match="there are: here"):
        base_of(BuildSpec.model_validate({"distribution": "elsewhere"}), profile)


def test_labels_say_what_others_look_up() -> None:
    spec = {
        "labels": {"team": "vision", "org.opencontainers.image.source": "https://example/repo"},
        "minimum": {"cpu": 1.5, "memory": "512MiB", "accelerators": {"nvidia.com/gpu": 2}},
    }
    labels = dict(plan_image(job(spec), CPU, BASE, base_digest="sha256:ab").labels)
    assert labels["team"] == "vision"
    assert labels["org.opencontainers.image.source"] == "https://example/repo"
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert labels["org.opencontainers.image.base.digest"] == "sha256:ab"
    assert labels["org.opencontainers.image.created"] == "1970-01-01T00:00:00Z"
    assert labels["dev.longshore.minimum.cpu"] == "1.5"
    assert labels["dev.longshore.minimum.memory"] == str(512 * 2**20)
    assert labels["dev.longshore.minimum.accelerators"] == "nvidia.com/gpu=2"
    assert "OMP_NUM_THREADS" in labels["dev.longshore.environment.cpu-count"].split(",")


@pytest.mark.parametrize("label", ["dev.longshore.user", "org.opencontainers.image.base.digest"])
def test_labels_that_the_build_sets_are_refused(label: str) -> None:
    with pytest.raises(CannotQuote, match="set by the build itself"):
        plan_image(job({"labels": {label: "x"}}), CPU, BASE)


def test_neither_build_nor_order_of_what_was_listed_changes_the_plan() -> None:
    files = tuple(ContextFile(name, f"sha256:{name}", 1) for name in "ab")
    one = job({"environment": {"A": "1", "B": "2"}, "volumes": ["/x", "/y"]}, files=files)
    other = job({"environment": {"B": "2", "A": "1"}, "volumes": ["/y", "/x"]}, files=files[::-1], build_id="b2")
    assert plan_image(one, CPU, BASE) == plan_image(other, CPU, BASE)


def test_what_was_prepared_is_not_installed_again() -> None:
    spec = {"packages": {"apt": ["curl"], "pypi": ["flask"]}}
    plan = plan_image(job(spec), CPU, BASE, Prepared(pypi=True, apt=True, apt_configure=True))
    assert (plan.prepared_apt, plan.configure_apt, plan.prepared_pypi) == (True, True, True)
    assert plan.package_lists() == {}


def test_commands_before_the_entrypoint_are_part_of_it() -> None:
    plan = plan_image(job({}, {"pre_exec": [["convert", "a b"]], "entrypoint": ["serve"]}), CPU, BASE)
    assert plan.entrypoint == ("/bin/sh", "-c", "'convert' 'a b' && exec \"$@\"", "longshore", "serve")


sizes = st.lists(st.sampled_from([0, 1, LARGE_BYTES - 1, LARGE_BYTES, 3 * LARGE_BYTES]), max_size=40)


@given(sizes, st.randoms(use_true_random=False))
def test_every_file_is_in_one_layer_and_code_in_the_last(sizes: list[int], random: Any) -> None:
    files = [ContextFile(f"f{number}", f"sha256:{number}", size) for number, size in enumerate(sizes)]
    layers = file_layers(files)
    assert sorted(file.path for layer in layers.values() for file in layer) == sorted(file.path for file in files)
    assert len(layers) <= MOST_LARGE + 1
    small = {file.path for file in files if file.size_bytes < LARGE_BYTES}
    assert {file.path for file in layers.get("files", ())} == small
    if small:
        assert list(layers)[-1] == "files"
    random.shuffle(files)
    assert file_layers(files) == layers


def test_a_change_of_code_leaves_the_layers_of_large_files_alone() -> None:
    model = ContextFile("model.bin", "sha256:m", LARGE_BYTES)
    before, after = (file_layers([model, ContextFile("a.py", f"sha256:{digest}", 9)]) for digest in "12")
    assert before["large/00"] == after["large/00"] == (model,)
    assert before["files"] != after["files"]
