"""What a build says of itself that would differ next time."""

import pytest

from controller.builds.reproducibility import bundle_notes, image_notes, package_notes
from controller.builds.requirements import Requirements

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    "requirement", ["flask==3.1.3", "flask == 3.1.3", "flask===3.1.3", "flask[async]==3.1.3", "flask>=3,==3.1.3"]
)
def test_a_pinned_python_package_is_not_named(requirement: str) -> None:
    assert bundle_notes(Requirements(pypi=(requirement,)), ["Flask"]) == ()


@pytest.mark.parametrize("requirement", ["flask", "flask>=3", "flask~=3.1", "flask==3.*", "flask[async]", "flask!=3.0"])
def test_an_open_python_package_is_named(requirement: str) -> None:
    (note,) = bundle_notes(Requirements(pypi=(requirement,)), ["Flask"])
    assert note == "not repeatable: the newest versions are taken of the pypi packages flask; pin them as NAME==VERSION"


def test_what_a_pinned_package_needs_itself_is_named_too() -> None:
    (note,) = bundle_notes(Requirements(pypi=("flask==3.1.3",)), ["flask", "werkzeug", "click"])
    assert "packages click, werkzeug;" in note


def test_many_open_packages_are_named_in_part() -> None:
    (note,) = bundle_notes(Requirements(pypi=("a",)), [f"p{number}" for number in range(9)])
    assert "p0, p1, p2, p3, p4, ...;" in note


def test_bases_and_packages_of_every_manager_are_looked_at() -> None:
    requirements = Requirements(
        apt=("curl",), dnf=("bash",), apk=("musl=1.2.5-r0", "zlib>1"), pypi=("numpy",), conda=("zlib=1.3", "gdal")
    )
    notes = image_notes(requirements, "docker.io/library/debian:12", DIGEST)
    assert notes[0].endswith(f"name it as docker.io/library/debian@{DIGEST}")
    assert ["zlib>1" in notes[3], "musl" in notes[3], "gdal" in notes[5], "zlib" in notes[5]] == [
        True, False, True, False,
    ]  # fmt: skip
    assert len(notes) == 6


def test_a_pinned_image_only_says_what_its_packages_bring_along() -> None:
    requirements = Requirements(apt=("curl=7.88.1-10",), dnf=("bash-5.2.26-3.fc40",))
    pinned = image_notes(requirements, f"docker.io/library/debian@{DIGEST}", DIGEST)
    assert all("what the named" in note for note in pinned)
    assert package_notes(Requirements()) == ()


def test_a_base_that_was_made_from_packages_says_so() -> None:
    (note,) = image_notes(Requirements(), "docker.io/library/debian:12", "")
    assert "was made from the distribution's packages" in note


def test_steps_of_a_user_are_said_not_to_be_looked_at() -> None:
    pinned = f"registry.example/base@{DIGEST}"
    assert image_notes(Requirements(), pinned, DIGEST) == ()
    (note,) = image_notes(Requirements(), pinned, DIGEST, ["date > now"])
    assert note.startswith("not repeatable, unless build.steps are: ")
