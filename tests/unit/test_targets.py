"""Target profiles and the bases that are bootstrapped in place of theirs."""

import re
from pathlib import Path
from typing import Any

import pytest

from controller.builds import emulation, targets
from controller.builds.bootstrap import load_recipes, recipe_for
from controller.builds.model import BuildFailed
from controller.builds.targets import load_profiles
from controller.spec.definitions import InvalidDefinition
from controller.spec.image_names import full_name
from controller.spec.model import BuildSpec
from controller.spec.runtimes import load_runtimes


def test_profiles_for_both_kinds_of_plain_machines_are_there() -> None:
    platforms = {name: profile.platform for name, profile in load_profiles().items()}
    assert platforms["x86-cpu"] == "linux/amd64"
    assert platforms["arm64-cpu"] == "linux/arm64"


def test_every_profile_but_those_on_a_vendors_base_builds_without_a_registry() -> None:
    needing = {name for name, profile in load_profiles().items() if recipe_for(profile.base) is None}
    assert needing == {"jetson-orin", "jetson-xavier", "jetson-nano"}


def test_no_image_has_two_recipes() -> None:
    names = [name for recipe in load_recipes() for name in recipe.stands_for]
    assert len(names) == len(set(names))
    assert names == [full_name(name) for name in names]


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("docker.io/debian:12", "docker.io/library/debian:12"),
        ("someone/thing:1", "docker.io/someone/thing:1"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("registry.example:5000/a", "registry.example:5000/a:latest"),
        ("localhost/a:1", "localhost/a:1"),
        ("python@sha256:" + "0" * 64, "docker.io/library/python@sha256:" + "0" * 64),
    ],
)
def test_short_names_are_read_as_docker_reads_them(short: str, full: str) -> None:
    assert full_name(short) == full


def test_a_kept_base_is_used_only_for_the_same_recipe_and_architecture() -> None:
    keys = {recipe.key(architecture) for recipe in load_recipes() for architecture in ("amd64", "arm64")}
    assert len(keys) == 2 * len(load_recipes())
    recipe = load_recipes()[0]
    assert recipe.model_copy(update={"include": (*recipe.include, "curl")}).key("amd64") not in keys


def test_a_foreign_architecture_needs_a_handler_in_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "BINFMT", tmp_path)
    monkeypatch.setattr(emulation, "own_architecture", lambda: "amd64")
    emulation.check_runnable(load_profiles()["x86-cpu"])
    arm = load_profiles()["arm64-cpu"]
    with pytest.raises(BuildFailed) as caught:
        emulation.check_runnable(arm)
    assert caught.value.reason == "EmulationUnavailable"
    assert "qemu-user-static" in caught.value.message
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n")
    emulation.check_runnable(arm)


PROFILE = """\
name: lamp
description: Lamps with a model in them
platform: linux/arm64
base: docker.io/library/python:3.11-slim-bookworm
engines: [python, onnx]
"""


def test_a_site_adds_profiles_in_a_folder_and_overrides_ours(tmp_path: Path) -> None:
    (tmp_path / "lamp.yaml").write_text(PROFILE)
    (tmp_path / "x86-cpu.yaml").write_text(PROFILE.replace("name: lamp", "name: x86-cpu"))
    profiles = load_profiles(tmp_path)
    assert profiles["lamp"].architecture == "arm64"
    assert profiles["x86-cpu"].platform == "linux/arm64"
    assert load_profiles()["x86-cpu"].platform == "linux/amd64"


def test_every_part_of_a_process_sees_the_folder_once_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "lamp.yaml").write_text(PROFILE)
    targets.use_folder(tmp_path)
    try:
        assert "lamp" in load_profiles()
    finally:
        targets.use_folder(None)
    assert "lamp" not in load_profiles()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("platform: linux/arm64", "platform: linux/arm46", "platform: expected linux/amd64 or linux/arm64"),
        ("engines:", "engins:", "engins: unknown key; did you mean 'engines'?; allowed: name, platform, base"),
        ("description: Lamps with a model in them\n", "", "description: required, and missing"),
        ("[python, onnx]", "[python, onxx]", "engines: there is no runtime 'onxx'; did you mean 'onnx'?"),
        ("name: lamp", "name: light", "name: is 'light'; the file's name says 'lamp'"),
        ("engines", "accelerator: {kind: gpu}\nengines", "accelerator.kind: 'gpu' is not allowed; expected a CDI kind"),
    ],
)
def test_a_wrong_profile_file_is_refused_by_file_and_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "lamp.yaml").write_text(PROFILE.replace(old, new))
    with pytest.raises(InvalidDefinition) as caught:
        load_profiles(tmp_path)
    assert "lamp.yaml: " in str(caught.value)
    assert said in str(caught.value)


def test_all_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("name: [")
    with pytest.raises(InvalidDefinition) as caught:
        load_profiles(tmp_path)
    assert all(f"{name}.yaml: cannot be read" in str(caught.value) for name in ("one", "two"))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match="is no folder"):
        load_profiles(tmp_path / "nowhere")


def test_an_engine_runs_where_something_is_installed_for_it_or_the_base_brings_it() -> None:
    for profile in load_profiles().values():
        accelerator = profile.accelerator.kind if profile.accelerator else ""
        for kind in set(profile.engines) - set(profile.provides) - {"python", "acl"}:
            runtime = load_runtimes()[kind]
            assert runtime.accelerated.get(accelerator, runtime.packages).pypi, f"{kind} on {profile.name}"


def test_profiles_whose_hardware_was_not_at_hand_say_so() -> None:
    for profile in load_profiles().values():
        if profile.name != "x86-cpu":
            assert re.search(r"not on a board|[Nn]ot checked on|not run", profile.notes), profile.name


@pytest.mark.parametrize(
    ("profile", "build", "devices"),
    [
        ("x86-cuda", {"runtime": {"kind": "onnx"}}, ("nvidia.com/gpu=all",)),
        ("x86-cuda", {"runtime": {"kind": "python"}}, ()),
        ("x86-cuda", {}, ()),
        ("x86-cuda", {"minimum": {"accelerators": {"nvidia.com/gpu": 1}}}, ("nvidia.com/gpu=all",)),
        ("jetson-nano", {"runtime": {"kind": "tensorrt"}}, ("nvidia.com/gpu=all",)),
        ("odroid-m1", {"runtime": {"kind": "rknn"}}, ("rockchip.com/npu=all",)),
        ("odroid-m1", {"runtime": {"kind": "onnx"}}, ()),
        ("odroid-n2", {"runtime": {"kind": "acl"}}, ("arm.com/mali=all",)),
        ("x86-cpu", {"runtime": {"kind": "onnx"}}, ()),
    ],
)
def test_a_workload_gets_the_accelerator_that_it_uses(
    profile: str, build: dict[str, Any], devices: tuple[str, ...]
) -> None:
    assert targets.wanted_devices(load_profiles()[profile], BuildSpec.model_validate(build)) == devices
