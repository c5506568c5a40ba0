"""What a Containerfile does is what was meant, by readers that we did not write: Podman's own parser, and the shell."""

import os
import posixpath
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.rendering import ImagePlan, quoting, render
from tests.support.containerfile import parse
from tests.support.drawn_plans import nasty, plans
from tests.support.podmans_reader import BASE_PATH, Copied, Meaning, NoReader, PodmansReader, podmans_reader

PLANS = 300


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmansReader]:
    try:
        with podmans_reader(tmp_path_factory.mktemp("reader")) as made:
            yield made
    except NoReader as error:
        if "CI" in os.environ and "missing" not in str(error):
            raise
        pytest.skip(f"{error}; it compiles the parser of Podman")


@settings(max_examples=PLANS)
@given(plan=plans)
def test_podmans_parser_finds_exactly_what_was_meant(reader: PodmansReader, plan: ImagePlan) -> None:
    text = render(plan)
    found = reader.read(text)
    assert found.base == plan.base
    assert found.environment == meant_environment(plan)
    assert found.labels == dict(plan.labels)
    assert found.ports == sorted({f"{port}/tcp" for port in plan.ports})
    assert found.volumes == sorted(set(plan.volumes))
    assert (found.user, found.entrypoint, found.command) == (plan.owner, list(plan.entrypoint), [])
    assert place(found.workdir) == place(plan.workdir)
    assert [replace(one, to=place(one.to)) for one in found.copies] == meant_copies(plan)
    assert [one.args[4:] for one in found.runs if not one.shell] == [[step] for step in plan.steps]
    check_like_ours(found, text)


def check_like_ours(found: Meaning, text: str) -> None:
    """The parser of the tests sees the same: what `test_rendering` finds out about commands holds for Podman."""
    ours = parse(text)
    assert found.keywords == [one.keyword for one in ours]
    runs = [one for one in ours if one.keyword == "RUN"]
    for theirs, one in zip(found.runs, runs, strict=True):
        assert theirs.args == ([one.command()] if theirs.shell else one.run_form())
        assert [dict(option.split("=", 1) for option in mount.split(",")) for mount in theirs.mounts] == one.mounts()


@given(st.lists(nasty, min_size=1, max_size=50))
def test_a_shell_reads_quoted_words_as_they_were(words: list[str]) -> None:
    command = "printf '%s\\0' " + " ".join(map(quoting.shell, words))
    said = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == words


def meant_environment(plan: ImagePlan) -> dict[str, str]:
    """In the order in which the instructions come."""
    meant, path = dict[str, str](), BASE_PATH
    if plan.conda:
        path = f"/opt/conda/bin:{path}"
        meant |= {"PATH": path, "CONDA_PREFIX": "/opt/conda", "PYTHONUNBUFFERED": "1"}
    if plan.pypi:
        meant |= {"PATH": f"/opt/venv/bin:{path}", "PYTHONUNBUFFERED": "1"}
        meant |= {} if plan.conda else {"VIRTUAL_ENV": "/opt/venv"}
    return {**meant, **dict(plan.environment)}


def meant_copies(plan: ImagePlan) -> list[Copied]:
    prepared = {
        "root": plan.prepared_root, "apt": plan.prepared_apt, "conda": bool(plan.conda),
        "pypi": plan.prepared_pypi and bool(plan.pypi),
    }  # fmt: skip
    meant = [Copied([f"prepared/{part}.tar"], "/", "") for part, is_there in prepared.items() if is_there]
    if plan.runtime_files:
        meant.append(Copied(["runtime/"], "/opt/longshore/runtime", ""))
    return [*meant, *(Copied([f"{folder}/"], place(plan.workdir), plan.owner) for folder in plan.folders)]


def place(path: str) -> str:
    """The one way to write it."""
    return posixpath.normpath("/" + path.lstrip("/"))
