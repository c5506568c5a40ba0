"""A revision has a value for each secret that its spec names: from the request, else from the revision before."""

from pathlib import Path

import pytest

from controller.deployments.secrets import check_secrets, sealed_values
from controller.deployments.service import Request
from controller.errors import InvalidRequest
from controller.sealing import LARGEST_VALUE, SecretBox
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from tests.support.rows import PROJECT


def spec(*names: str) -> Spec:
    secrets = ", ".join(f"{{name: {name}}}" for name in names)
    text = f"""\
version: 1
name: digits
deploy: {{entrypoint: [serve], network: {{ports: [{{name: http, container: 80}}]}}, secrets: [{secrets}]}}
targets: [{{profile: x86-cpu}}]
"""
    return load_spec(text.encode())


@pytest.fixture
def box(tmp_path: Path) -> SecretBox:
    return SecretBox(tmp_path / "key")


@pytest.mark.parametrize(
    ("named", "given", "problem"),
    [
        (["token"], {"tokne": b"hunter2"}, "secrets: deploy.secrets of the spec does not name 'tokne'; it names token"),
        ([], {"token": b"hunter2"}, "does not name 'token'; it names none"),
        (["token"], {"token": b"hunter2" * LARGEST_VALUE}, "has 458752 bytes; 65536 are allowed"),
    ],
)
def test_other_values_than_those_named_are_refused(named: list[str], given: dict[str, bytes], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as caught:
        check_secrets(spec(*named), given)
    assert "hunter2" not in str(caught.value)


def test_the_largest_value_and_an_empty_one_are_taken() -> None:
    check_secrets(spec("a", "b"), {"a": b"x" * LARGEST_VALUE, "b": b""})


def test_what_is_not_given_is_as_before_and_what_is_not_named_any_more_is_gone(box: SecretBox) -> None:
    before = sealed_values(box, spec("a", "b", "c"), {"a": b"1", "b": b"2", "c": b"3"}, None)
    after = sealed_values(box, spec("a", "b"), {"b": b""}, before)
    assert box.open(after) == {"a": b"1", "b": b""}
    assert sealed_values(box, spec(), {}, after) is None


def test_a_secret_that_never_had_a_value_is_refused_by_its_name(box: SecretBox) -> None:
    before = sealed_values(box, spec("a"), {"a": b"1"}, None)
    with pytest.raises(InvalidRequest, match="names 'b', and neither this request nor the revision before"):
        sealed_values(box, spec("a", "b"), {}, before)
    with pytest.raises(InvalidRequest, match="names 'a', and neither"):
        sealed_values(box, spec("a"), {}, None)


def test_with_another_key_all_values_have_to_come_again(box: SecretBox, tmp_path: Path) -> None:
    before = sealed_values(box, spec("a", "b"), {"a": b"1", "b": b"2"}, None)
    other = SecretBox(tmp_path / "other")
    with pytest.raises(InvalidRequest, match=r"names 'b', .*secrets.key\) is another one; send it again"):
        sealed_values(other, spec("a", "b"), {"a": b"3"}, before)
    assert other.open(sealed_values(other, spec("a", "b"), {"a": b"3", "b": b"4"}, before)) == {"a": b"3", "b": b"4"}


def test_no_value_is_in_the_text_of_a_request() -> None:
    values = {"token": b"hunter2"}
    assert "hunter2" not in repr(Request(PROJECT, b"", secrets=values, build_secrets=values))
