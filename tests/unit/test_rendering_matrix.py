"""The Containerfile of every pair of target profile and base with every runtime that may run there."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from controller.builds.model import ContextFile, TargetJob
from controller.builds.outcome import readable_step
from controller.builds.plan import plan_image
from controller.builds.requirements import base_of
from controller.builds.targets import TargetProfile, load_profiles
from controller.rendering import render
from controller.spec.image_names import full_name
from controller.spec.loader import load_spec
from controller.spec.runtimes import load_runtimes
from tests.support.containerfile import parse

GOLDEN = Path(__file__).parents[1] / "golden" / "matrix"
# Labels are the same everywhere but for names, and have tests of their own.
SHOWN = ("FROM", "RUN", "ENV", "COPY", "EXPOSE", "ENTRYPOINT")


@pytest.mark.parametrize("name", load_profiles())
def test_what_an_image_consists_of_is_as_it_was_reviewed(name: str) -> None:
    """The whole texts of the single parts are in tests/golden/containerfiles. LONGSHORE_UPDATE_GOLDEN=1 writes the
    files anew, to be read in the diff."""
    profile = load_profiles()[name]
    text = "\n".join(section(profile, kind, base) for kind in profile.engines for base in ("", *sorted(profile.bases)))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("LONGSHORE_UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_no_reviewed_profile_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(load_profiles())


def section(profile: TargetProfile, runtime: str, distribution: str) -> str:
    """The instructions for one runtime on one base, steps by what they say of themselves."""
    job = job_of(profile, runtime, distribution)
    text = render(plan_image(job, profile, full_name(base_of(job.spec, profile))))
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    steps = [readable_step(f"{one.keyword} {one.text}") for one in parse(text) if one.keyword in SHOWN]
    return "\n".join([f"== {runtime} on {distribution or 'the base of the profile'}", *comments, *steps, ""])


def job_of(profile: TargetProfile, runtime: str, distribution: str) -> TargetJob:
    kind = load_runtimes()[runtime]
    build = {"runtime": {"kind": runtime, "path": f"model/digits{(kind.suffixes or ('.py',))[0]}"}}
    chosen = {"distribution": distribution} if distribution else {}
    # A runtime that serves models says itself what is run.
    deploy = {"entrypoint": ["serve"], "network": {"ports": [{"name": "http", "container": 8000}]}}
    text = {
        "version": 1, "name": "digits", "build": {**build, **chosen}, "deploy": {} if kind.serves_models else deploy,
        "targets": [{"profile": profile.name}],
    }  # fmt: skip
    spec = load_spec(yaml.safe_dump(text).encode(), known_profiles=load_profiles())
    job = TargetJob("b1", "alice", "vision", spec.name, profile.name, spec.build, "", spec.deploy)
    return replace(job, files=tuple(ContextFile(path, "", 0) for path in spec.build.files))
