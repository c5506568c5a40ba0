"""Whatever comes in, what comes out is a valid Spec or a clean refusal."""

import json
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.builds.targets import load_profiles
from controller.errors import InvalidSpec, Problem
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from controller.spec.resolve import workload_spec
from tests.unit.test_spec_loader import VALID

# With every part that a runtime completes or a profile restricts.
FULL = """\
version: 1
name: digits
build:
  runtime: {kind: onnx, path: model/digits.onnx}
  distribution: debian-bookworm
  packages: {apt: [libgomp1], pypi: [numpy], pypi_indexes: [https://packages.example/simple]}
  files: [model]
  steps: [make]
  secrets: [token]
  labels: {com.example.team: vision}
  volumes: [/data]
  minimum: {cpu: 2, memory: 1GiB, accelerators: {nvidia.com/gpu: 1}}
  tags: [v1]
  timeout: 1h
deploy:
  pre_exec: [[python, warm_up.py]]
  network: {ports: [{name: http, container: 9000}]}
targets:
  - {profile: x86-cuda, artifact: image}
"""
MARKS = (
    "&a ",
    "*a",
    "<<: ",
    "!!int ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "\t",
    ">",
    "|",
    "#",
    "?",
    "---\n",
    "'",
    '"',
)
ODDITIES = ("null", ".nan", "1e999", "\x00", "\ufeff", "%YAML 1.1\n", "0x", "-0", "\u2028", "true", "~", "9" * 20)
FRAGMENTS = st.sampled_from((*MARKS, *ODDITIES))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def check(data: bytes) -> None:
    """A valid Spec has an answer on the wire; a refusal has problems with places in the file."""
    spec, problems = outcome(data)
    if spec is None:
        lines = data.count(b"\n") + data.count(b"\r") + 2
        assert problems
        assert all(problem.message and 0 <= problem.line <= lines for problem in problems)
    else:
        assert workload_spec(spec).readiness.WhichOneof("probe")


def outcome(data: bytes) -> tuple[Spec | None, list[Problem]]:
    try:
        return load_spec(data, load_profiles()), []
    except InvalidSpec as refusal:
        return None, refusal.problems


def test_files_that_are_changed_below_are_valid_as_they_are() -> None:
    assert [outcome(text.encode())[1] for text in (VALID, FULL)] == [[], []]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_text_is_refused_cleanly_or_valid(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from((VALID, FULL)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(FRAGMENTS | st.text(string.printable, max_size=5)) + text[at + cut :]
    check(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_refused_cleanly_or_valid(data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from((VALID, FULL))).splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    key = lines[at].split(":")[0]
    lines[at] = f"{key}: {json.dumps(data.draw(VALUES))}"
    check("\n".join(lines).encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    check(data)
