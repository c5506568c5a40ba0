"""Which wheel of each package a bundle gets, and the lock that a device installs by."""

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import Tag

from controller.builds.bundles.lock import LockedWheel, NoWheel, lock_text, read_lock
from controller.builds.bundles.packing import Entry, pack
from controller.builds.bundles.platforms import ranks
from controller.builds.bundles.resolve import environment
from controller.builds.host_settings import CA_PATH, HostSettings
from controller.builds.targets import load_profiles

X86 = ranks("3.11", "x86_64-manylinux_2_36")
SHA = "ab" * 32


def lock(*files: str, name: str = "thing", sha256: str = SHA) -> str:
    wheels = ", ".join(
        f'{{ url = "https://index.example/{file}", size = 7, hashes = {{ sha256 = "{sha256}" }} }}' for file in files
    )
    return f'lock-version = "1.0"\n[[packages]]\nname = "{name}"\nversion = "1.0"\nwheels = [{wheels}]\n'


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("thing-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "thing-1.0-py3-none-any.whl"),
        ("thing-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "thing-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"),
        ("thing-1.0-cp311-cp311-manylinux2014_x86_64.whl", "thing-1.0-cp310-abi3-manylinux_2_28_x86_64.whl"),
        ("thing-1.0-cp39-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "thing-1.0-py3-none-any.whl"),
        ("thing-1.0-py2.py3-none-any.whl", "thing-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"),
        ("thing-1.0-py3-none-any.whl", "thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
        ("thing-1.0-py3-none-any.whl", "thing-1.0-cp311-cp311-manylinux_2_39_x86_64.whl"),
        ("thing-1.0-py3-none-any.whl", "thing-1.0-cp311-cp311-musllinux_1_2_x86_64.whl"),
        ("thing-1.0-py3-none-any.whl", "no wheel at all.zip"),
    ],
)
def test_the_wheel_that_fits_best_is_taken_in_whichever_order_they_are_listed(better: str, worse: str) -> None:
    for order in ((better, worse), (worse, better)):
        (wheel,) = read_lock(lock(*order), X86)
        assert (wheel.file, wheel.size_bytes, wheel.sha256) == (better, 7, SHA)


@pytest.mark.parametrize(
    "text",
    [
        lock("thing-1.0-cp311-cp311-win_amd64.whl"),
        lock(),
        lock("thing-1.0-py3-none-any.whl", sha256="md5:abc"),
    ],
)
def test_a_package_without_a_wheel_that_fits_is_named(text: str) -> None:
    with pytest.raises(NoWheel, match=r"thing 1\.0 has no wheel that fits"):
        read_lock(text, X86)


def test_a_file_name_is_read_from_its_address() -> None:
    text = lock("thing-1.0%2Blocal-py3-none-any.whl#egg")
    assert read_lock(text.replace("#egg", "?token=x"), X86)[0].file == "thing-1.0+local-py3-none-any.whl"


def test_every_profile_that_names_a_platform_of_wheels_names_one_that_is_known() -> None:
    named = [profile for profile in load_profiles().values() if profile.wheels]
    assert {profile.architecture for profile in named} == {"amd64", "arm64"}
    for profile in named:
        machine = "x86_64" if profile.architecture == "amd64" else "aarch64"
        tag = profile.python.replace(".", "")
        assert Tag(f"cp{tag}", f"cp{tag}", f"manylinux2014_{machine}") in ranks(profile.python, profile.wheels)
        assert Tag("py3", "none", "any") in ranks(profile.python, profile.wheels)


def test_a_platform_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no platform of wheels"):
        ranks("3.11", "linux")


names = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.lists(st.tuples(names, st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True)), unique=True))
def test_the_lock_pins_each_package_and_does_not_depend_on_the_order(packages: list[tuple[str, str]]) -> None:
    wheels = [LockedWheel(name, version, f"{name}.whl", SHA) for name, version in packages]
    text = lock_text(wheels)
    assert text == lock_text(wheels[::-1])
    assert sorted(text.splitlines()) == sorted(f"{name}=={version} --hash=sha256:{SHA}" for name, version in packages)


def test_layers_have_neither_time_nor_owner_nor_order(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"model")
    entries = [Entry("files/model.onnx", file), Entry("files/run.sh", b"#!/bin/sh\n", executable=True)]
    first = pack(entries, "files", tmp_path / "first")
    file.touch()
    second = pack(entries[::-1], "files", tmp_path / "second")
    assert (first.digest, first.size_bytes) == (second.digest, second.size_bytes)
    with tarfile.open(tmp_path / "first") as archive:
        members = [(member.name, member.mode, member.mtime, member.uid, member.uname) for member in archive]
    assert members == [("files/model.onnx", 0o644, 0, 0, ""), ("files/run.sh", 0o755, 0, 0, "")]


def test_a_spec_index_comes_before_those_of_the_machine_and_certificates_lie_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_INDEX", raising=False)
    settings = HostSettings({"UV_INDEX": "https://a.example https://b.example", "SSL_CERT_FILE": CA_PATH}, tmp_path)
    made = environment(settings, ["https://spec.example"])
    assert made["UV_INDEX"] == "https://spec.example https://a.example https://b.example"
    assert made["SSL_CERT_FILE"] == str(tmp_path)
    assert "UV_INDEX" not in environment(HostSettings(), [])
