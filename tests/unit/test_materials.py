"""The bill of materials: which packages lie in a folder, and a document that others can read."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from controller.builds import materials_reading
from controller.builds.materials_document import document, packages_only
from controller.builds.materials_reading import Package, TooMuch, has_rpm, installed_packages, rpm_packages
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import ContextFile, TargetJob
from controller.spec.model import BuildSpec
from tests.support.image_roots import PURLS, make_root

JOB = TargetJob(
    build_id="b-1", user_id="alice", project_id="vision", name="digits", profile="x86-cpu",
    spec=BuildSpec(), repository="registry.example/alice/digits",
    files=(ContextFile("server.py", f"sha256:{'a' * 64}", 3), ContextFile("model/a b.onnx", f"sha256:{'b' * 64}", 4)),
)  # fmt: skip


def bill(packages: list[Package]) -> Any:
    text = document(JOB, packages, JOB.files)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    return json.loads(text)


def test_the_bill_of_packages_is_the_same_whatever_the_users_files_are() -> None:
    packages = [Package("pkg:pypi/a@1", "a", "1"), Package("pkg:pypi/b@2", "b", "2")]
    whole = document(JOB, packages, JOB.files)
    text = packages_only(whole)
    assert text == packages_only(document(JOB, packages, ())) == document(JOB, packages, ())
    assert text != whole
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None


def test_packages_of_every_manager_are_found_once(tmp_path: Path) -> None:
    found = installed_packages(make_root(tmp_path))
    assert [package.purl for package in found] == PURLS
    by_name = {package.name: package for package in found}
    assert by_name["Flask"].expression == "BSD-3-Clause"
    assert by_name["numpy"].license == "BSD License"
    assert by_name["musl"].license == "MIT"
    assert by_name["zlib"].sha256.startswith("5d7c0e5f")


def test_links_of_an_image_lead_nowhere_outside_of_it(tmp_path: Path) -> None:
    outside = make_root(tmp_path / "host")
    root = tmp_path / "image"
    for name in ("var/lib/dpkg", "opt/venv/lib", "opt/conda"):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").symlink_to(outside / "var/lib/dpkg/status")
    (root / "opt/venv/lib/python3.11").symlink_to(outside / "opt/venv/lib/python3.11")
    (root / "opt/conda/conda-meta").symlink_to("../../../host/opt/conda/conda-meta")
    (root / "etc").symlink_to("etc")
    assert installed_packages(root) == []


def test_an_image_that_names_packages_without_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / str(number)).write_text(f"Package: p{number}\nVersion: 1\n{'x' * 100}\n")
    assert len(installed_packages(tmp_path)) == 20
    monkeypatch.setattr(materials_reading, "MAX_PACKAGES", 19)
    with pytest.raises(TooMuch, match="more than 19 packages"):
        installed_packages(tmp_path)
    monkeypatch.setattr(materials_reading, "MAX_TOTAL", 2000)
    with pytest.raises(TooMuch, match="described by more than"):
        installed_packages(tmp_path)


def test_a_database_of_rpm_is_looked_for_in_the_image_alone(tmp_path: Path) -> None:
    database = tmp_path / "host/lib/rpm"
    database.mkdir(parents=True)
    (database / "rpmdb.sqlite").touch()
    root = tmp_path / "image"
    root.mkdir()
    (root / "var").symlink_to(tmp_path / "host")
    assert not has_rpm(root)
    (root / "var").unlink()
    (root / "var/lib/rpm").mkdir(parents=True)
    assert not has_rpm(root)
    (root / "var/lib/rpm/rpmdb.sqlite").touch()
    assert has_rpm(root)


def test_links_inside_an_image_are_followed(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    (root / "opt/venv").rename(root / "opt/real")
    (root / "opt/venv").symlink_to("real")
    assert [package.purl for package in installed_packages(root)] == PURLS


def test_what_rpm_lists_becomes_packages(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=fedora\n")
    listing = "bash\t5.2.26-3.fc40\tx86_64\tGPL-3.0-or-later\ngpg-pubkey\t1-2\t(none)\tpubkey\n\n"
    (package,) = rpm_packages(listing, tmp_path)
    assert package.purl == "pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64"


def test_the_document_is_valid_and_names_packages_and_files(tmp_path: Path) -> None:
    found = bill(installed_packages(make_root(tmp_path)))
    assert [part["purl"] for part in found["components"] if part["type"] == "library"] == PURLS
    files = [part for part in found["components"] if part["type"] == "file"]
    assert [part["name"] for part in files] == ["model/a b.onnx", "server.py"]
    assert files[1]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert found["metadata"]["component"]["name"] == "digits"


def test_the_same_contents_give_the_same_document_and_others_another(tmp_path: Path) -> None:
    packages = installed_packages(make_root(tmp_path))
    assert document(JOB, packages, JOB.files) == document(replace(JOB, build_id="b-2"), packages[::-1], JOB.files[::-1])
    assert bill(packages)["serialNumber"] != bill(packages[1:])["serialNumber"]


def test_an_empty_image_has_a_valid_document(tmp_path: Path) -> None:
    assert installed_packages(tmp_path) == []
    assert document(replace(JOB, files=()), [], ()).startswith(b"{")


def test_ten_thousand_packages_take_less_than_a_few_seconds() -> None:
    packages = [Package(f"pkg:pypi/p{number}@1.0", f"p{number}", "1.0") for number in range(10_000)]
    begin = time.process_time()
    document(JOB, packages, JOB.files)
    assert time.process_time() - begin < 5


def test_bills_are_kept_by_build_and_target(tmp_path: Path) -> None:
    store = MaterialsStore(tmp_path / "materials")
    store.save("b-1", "x86-cpu", b"{1}")
    store.save("b-1", "x86-cpu.bundle", b"{2}")
    store.save("b-2", "x86-cpu", b"")
    assert store.read("b-1", "x86-cpu") == b"{1}"
    assert store.read("b-1", "x86-cpu.bundle") == b"{2}"
    assert store.read("b-2", "x86-cpu") is None
    store.remove("b-1")
    store.remove("b-1")
    assert store.read("b-1", "x86-cpu") is None


@pytest.mark.parametrize("name", ["..", "../b", "", "a/b", ".hidden", "a\n"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="names no build or target"):
        MaterialsStore(tmp_path).read(name, "x86-cpu")
