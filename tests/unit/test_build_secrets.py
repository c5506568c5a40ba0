"""Values of build-time secrets are exactly those that the spec names, and are kept sealed."""

import stat
from pathlib import Path

import pytest

from controller.builds.model import BuildFailed
from controller.builds.secrets import check_secrets, opened
from controller.errors import InvalidRequest
from controller.sealing import LARGEST_VALUE, SecretBox


def test_what_was_sealed_is_opened_again_and_cannot_be_read_meanwhile(tmp_path: Path) -> None:
    box = SecretBox(tmp_path / "key")
    sealed = box.seal({"token": b"hunter2", "binary": bytes(range(256))})
    assert sealed is not None
    assert b"hunter2" not in sealed
    assert SecretBox(tmp_path / "key").open(sealed) == {"token": b"hunter2", "binary": bytes(range(256))}


def test_no_values_are_nothing(tmp_path: Path) -> None:
    box = SecretBox(tmp_path / "key")
    assert box.seal({}) is None
    assert box.open(None) == {}
    assert not (tmp_path / "key").exists()


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    SecretBox(tmp_path / "key").seal({"token": b"1"})
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_values_of_another_key_are_a_failure_with_what_to_do(tmp_path: Path) -> None:
    sealed = SecretBox(tmp_path / "key").seal({"token": b"1"})
    with pytest.raises(BuildFailed, match="send them again") as raised:
        opened(SecretBox(tmp_path / "other"), sealed)
    assert (raised.value.reason, raised.value.retryable) == ("SecretsUnreadable", False)


def test_equal_values_have_equal_fingerprints_for_one_key_only(tmp_path: Path) -> None:
    box, other = SecretBox(tmp_path / "key"), SecretBox(tmp_path / "other")
    assert box.fingerprint(b"1") == box.fingerprint(b"1") != box.fingerprint(b"2")
    assert box.fingerprint(b"1") != other.fingerprint(b"1")


@pytest.mark.parametrize(
    ("wanted", "given", "problem"),
    [
        (["token"], {}, "build.secrets names 'token', and no value for it was sent"),
        (["token"], {"token": b"", "tokne": b""}, "does not name 'tokne'; it names token"),
        ([], {"token": b""}, "does not name 'token'; it names none"),
        (["token"], {"token": b"x" * (LARGEST_VALUE + 1)}, "has 65537 bytes; 65536 are allowed"),
    ],
)
def test_other_values_than_those_named_are_refused(wanted: list[str], given: dict[str, bytes], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        check_secrets(wanted, given)


def test_exactly_the_values_that_are_named_are_taken() -> None:
    check_secrets(["a", "b"], {"b": b"x" * LARGEST_VALUE, "a": b""})
