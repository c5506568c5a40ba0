"""The numbers that deployments of bundles run as: kept, and never guessed."""

import os
from pathlib import Path

import pytest

from baremetal_agent.virtualenv.users import Users
from edge_agent.runtime.backend import BackendUnavailable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def test_deployments_have_numbers_of_their_own_that_they_keep(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json")
    numbers = [users.of("a"), users.of("b"), users.of("a")]
    assert numbers[0] == numbers[2] != numbers[1]
    users.settle()
    assert Users(tmp_path / "users.json").of("b") == numbers[1]


def test_numbers_that_the_disk_does_not_have_yet_are_taken(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json")
    first = users.of("a")
    users.settle()
    second = users.of("b")
    assert users.of("c") not in (first, second)
    users.keep_only({"a", "c"})
    assert users.of("d") == second


def test_numbers_of_instances_that_a_killed_agent_did_not_note_are_taken_and_kept(tmp_path: Path) -> None:
    first = Users(tmp_path / "users.json").of("a")
    assert first is not None
    users = Users(tmp_path / "users.json")
    assert users.of("b", [("a", first)]) != first
    assert users.of("a", [("a", first)]) == first


@pytest.mark.parametrize("said", ["", "[]", '{"a": "x"}', '{"a": null}', '{"a": 190'])
def test_damaged_file_gives_nobody_the_number_of_another(tmp_path: Path, said: str) -> None:
    (tmp_path / "users.json").write_text(said)
    with pytest.raises(BackendUnavailable, match=r"users.json says no users"):
        Users(tmp_path / "users.json").of("b")
    assert (tmp_path / "users.json").read_text() == said


def test_file_that_cannot_be_read_gives_nobody_the_number_of_another(tmp_path: Path) -> None:
    (tmp_path / "users.json").mkdir()
    with pytest.raises(IsADirectoryError):
        Users(tmp_path / "users.json").of("b")
    with pytest.raises(IsADirectoryError):
        Users(tmp_path / "users.json").keep_only({"a"})
