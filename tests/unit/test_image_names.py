"""Which names of images a spec may say: those that a registry can have and Podman can read, and no second spelling."""

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from controller.spec.image_names import IMAGE, ImageName, full_name, split_name
from tests.unit.test_spec_loader import changed, only

DIGEST = f"sha256:{'0' * 64}"
VALID = (
    "python",
    "python:3.11-slim",
    "registry.example/team/tool:V1.0-RC_2",
    f"registry.example/team/tool:{'t' * 128}",
    f"python@{DIGEST}",
    f"reg-1.example:65535/a/b.c_d__e---f:1@{DIGEST}",
    "a_b/c",
    "127.0.0.1:5000/alice/x:1",
    "registry:5000/x",
    f"registry.example/{'a' * 238}",
)
IMPOSSIBLE = (
    "registry.example/a//b",
    "registry.example/python:3.11:x",
    "registry.example/x@sha256:zz",
    f"registry.example/x@{DIGEST.upper()}",
    "registry.example/alice/../bob/x",
    "registry.example/a..b",
    "registry.example/a_.b",
    "registry.example/a___b",
    "registry.example/-a",
    "registry.example/a-",
    "registry.example/a/",
    "registry.example/a:",
    "registry.example/a:-x",
    f"registry.example/a:{'t' * 129}",
    "registry.example/A",
    "registry-.example/a",
    "[::1]:5000/a",
    f"registry.example/{'a' * 239}",
)
# Podman would read them: as another spelling of a registry, or as none at all.
REFUSED = ("Registry.example/a", "127.0.0.1:05000/a", "127.0.0.1:65536/a", "a_b.c/d", f"x@sha512:{'a' * 128}")
names: TypeAdapter[str] = TypeAdapter(ImageName)


@pytest.mark.parametrize("name", VALID)
def test_a_name_that_can_be_is_taken(name: str) -> None:
    assert names.validate_python(name) == name
    assert re.fullmatch(IMAGE, full_name(name))


@pytest.mark.parametrize("name", [*IMPOSSIBLE, *REFUSED, "", "/a", "a b", "a\n", "a:\u0661"])
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        names.validate_python(name)


def test_a_spec_says_where_such_a_name_stands_and_what_is_expected() -> None:
    problem = only(changed("build:\n", "build:\n  base: registry.example/alice/../bob/x\n"))
    assert (problem.path, problem.line) == ("build.base", 4)
    assert "'registry.example/alice/../bob/x' is not allowed; expected an image such as" in problem.message
    problem = only(changed("build:\n", f"build:\n  base: {'a' * 250}\n"))
    assert "expected registry and path of at most 255 characters" in problem.message


@pytest.mark.parametrize(
    ("name", "repository", "reference"),
    [
        ("registry:5000/a/b:1", "registry:5000/a/b", "1"),
        ("registry:5000/a/b", "registry:5000/a/b", ""),
        (f"registry:5000/a/b:1@{DIGEST}", "registry:5000/a/b", DIGEST),
        (f"python@{DIGEST}", "python", DIGEST),
    ],
)
def test_a_name_is_taken_apart(name: str, repository: str, reference: str) -> None:
    assert split_name(name) == (repository, reference)
