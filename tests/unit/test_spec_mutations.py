"""Specs that are mutated in their structure give a valid Spec or a clean refusal, never a crash.

`LONGSHORE_SPEC_MUTATIONS=100000` sets the number of mutated files; without it it is small.
"""

import copy
import os
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.builds.targets import load_profiles
from controller.cli.files import shipped_schema
from controller.errors import InvalidSpec, Problem
from controller.spec.loader import Reading, read_spec, warnings_of
from controller.spec.resolve import workload_spec
from controller.spec.writing import written
from tests.support.tango_files import OCCURRING, every_file
from tests.unit.test_spec_loader import VALID
from tests.unit.test_spec_properties import FULL, SCALARS, VALUES

MUTATIONS = int(os.environ.get("LONGSHORE_SPEC_MUTATIONS", "400"))
CHECK = jsonschema.Draft202012Validator(yaml.safe_load(shipped_schema()))
# What a tuple was is a list here; tags are put back into some of the texts.
PARSED = [yaml.safe_load(text.replace("!!python/tuple", "")) for text in (VALID, FULL, *every_file())]
ALL = [value for values in OCCURRING.values() for value in values]
KEYS = sorted(
    {part for path in OCCURRING for part in path} | {"version", "name", "targets", "checks", "ports", "files"}
)
ODD = ["", " ", "None", "0", "-1", "99999999999999999999", "1e999", "a b'", "\\", "../x", "/", "é", "[]", "y" * 5000]
LEAVES = st.sampled_from([*ALL, *ODD]) | SCALARS


def places(values: Any) -> list[tuple[Any, Any]]:
    """Every container with each of its keys or positions."""
    keys = list(values) if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else []
    return [(values, key) for key in keys] + [found for key in keys for found in places(values[key])]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A file of which some parts are replaced, moved, renamed, taken away, doubled or wrapped."""
    values = copy.deepcopy(draw(st.sampled_from(PARSED)))
    for _ in range(draw(st.integers(1, 4))):
        found = places(values)
        if not found:
            break
        where, key = draw(st.sampled_from(found))
        mutate(draw, values, where, key)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=draw(st.booleans()))
    return text.replace("deploy:\n- ", "deploy: !!python/tuple\n- ") if draw(st.booleans()) else text


def mutate(draw: st.DrawFn, root: Any, where: Any, key: Any) -> None:
    what = draw(st.sampled_from(["leaf", "value", "drop", "wrap", "unwrap", "rename", "move", "add", "text"]))
    if what == "leaf":
        where[key] = copy.deepcopy(draw(LEAVES))
    elif what == "value":
        where[key] = copy.deepcopy(draw(VALUES))
    elif what == "drop":
        del where[key]
    elif what == "wrap":
        where[key] = [where[key]]
    elif what == "unwrap":
        where[key] = where[key][0] if isinstance(where[key], list) and where[key] else {"x": where[key]}
    elif what == "rename" and isinstance(where, dict):
        where[draw(st.sampled_from(KEYS) | st.text(max_size=6))] = where.pop(key)
    elif what == "move" and isinstance(root, dict):
        root[draw(st.sampled_from(KEYS))] = copy.deepcopy(where[key])
    elif what == "add" and isinstance(where, dict):
        where[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(LEAVES))
    else:
        where[key] = str(where[key])[:200]


@pytest.mark.timeout(300 + MUTATIONS // 20)
@settings(max_examples=MUTATIONS, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_a_mutated_file_is_refused_cleanly_or_valid(text: str) -> None:
    lines = text.count("\n") + 2
    found, problems = outcome(text)
    if found is None:
        assert problems
        assert all(problem.message and 0 <= problem.line <= lines for problem in problems)
    else:
        assert all(warning.message and 0 < warning.line <= lines for warning in found.warnings)
        assert_means_the_same(text, found)


def outcome(text: str) -> tuple[Reading | None, list[Problem]]:
    try:
        return read_spec(text.encode("utf-8", "surrogatepass"), load_profiles()), []
    except InvalidSpec as refusal:
        return None, refusal.problems


def assert_means_the_same(text: str, found: Reading) -> None:
    """What is written as version 1 is the same, is known to editors, and can be told to a device."""
    again = read_spec(written(found).encode(), load_profiles())
    assert (again.spec, again.warnings) == (found.spec, ())
    assert warnings_of(text.encode()) == found.warnings
    assert [error.message for error in CHECK.iter_errors(found.values)] == []
    assert workload_spec(found.spec).readiness.WhichOneof("probe")
