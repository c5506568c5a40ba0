"""Target profiles and the bases that are bootstrapped in place of theirs."""

from pathlib import Path

import pytest

from controller.builds import emulation
from controller.builds.bases import full_name
from controller.builds.bootstrap import load_recipes, recipe_for
from controller.builds.model import BuildFailed
from controller.builds.targets import load_profiles


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
