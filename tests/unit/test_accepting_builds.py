"""What a request for a build may list, and where its artifacts lie."""

import re
import time
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.builds.jobs import repository_path
from controller.builds.listing import check_listed
from controller.builds.model import BuildState
from controller.errors import InvalidRequest
from tests.support.rows import build

# OCI distribution spec 1.1, "Pulling manifests".
REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


def path(user: str, project: str = "digits") -> str:
    return repository_path(replace(build(BuildState.QUEUED), user_id=user, project_id=project))


@given(NAMES, NAMES)
@example("alice.", "a..b")
@example("a__.b", "A")
@example("alice-", "a___b")
def test_every_owner_has_a_repository_that_a_registry_takes(user: str, project: str) -> None:
    assert REPOSITORY.fullmatch(path(user, project))
    assert len(path(user, project)) <= 255


@given(NAMES, NAMES)
@example("Alice", "alice")
@example("a..b", "a.b")
@example("library", path("library").split("/")[0])
@example("Alice", path("Alice").split("/")[0])
def test_no_two_owners_share_a_repository(one: str, other: str) -> None:
    assert (path(one) == path(other)) == (one == other)


def test_what_is_a_base_for_everybody_is_no_users() -> None:
    assert re.fullmatch(r"library-x[0-9a-f]{16}/library/digits", path("library", "library"))


def test_plain_names_are_kept() -> None:
    assert path("alice", "a.b_c-d") == "alice/a.b_c-d/digits"


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (["model", "model/a"], "listed as a file and has files below it"),
        (["model/a", "model/a"], "listed twice"),
        (["model/../a"], "not a plain relative path"),
        (["/model"], "not a plain relative path"),
        (["model//a"], "not a plain relative path"),
        (["model/a\0"], "not a plain relative path"),
        (["model/" + "a" * 256], "not a plain relative path"),
        (["model/" + "a/" * 64 + "a"], "too long"),
        (["other"], "not named by build.files"),
        (["model.bak"], "not named by build.files"),
        ([], "no such file was sent"),
    ],
)
def test_a_list_of_files_that_makes_no_tree_is_refused(listed: list[str], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        check_listed(["model"], listed)


def test_files_and_folders_of_the_spec_are_found() -> None:
    check_listed(["model", "server.py"], ["server.py", "model/a", "model/b/c"])
    check_listed(["."], ["server.py", "model/a"])
    check_listed(["a"], ["a-b/c", "a/b"][1:])


def test_ten_thousand_files_are_checked_in_no_time() -> None:
    paths = [f"data/{number}/values" for number in range(10_000)]
    began = time.process_time()
    check_listed(paths, list(reversed(paths)))
    # Comparing each with each takes a minute.
    assert time.process_time() - began < 5
