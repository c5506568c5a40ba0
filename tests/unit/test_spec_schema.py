"""The published JSON Schema is that of the models, and takes what the reader takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controller.builds.targets import load_profiles
from controller.cli.files import shipped_schema
from controller.spec.loader import read_spec
from controller.spec.schema import PROFILE, RUNTIME, json_schema
from tests.unit.test_spec_loader import VALID
from tests.unit.test_spec_properties import FULL

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json_schema({PROFILE: tuple(load_profiles()), RUNTIME: ("onnx",)})
CHECK = jsonschema.Draft202012Validator(SCHEMA)


def properties(schema: Any, above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field with its path in the schema."""
    for name, part in schema.get("properties", {}).items():
        yield f"{above}.{name}", part
    for name, part in schema.get("$defs", {}).items():
        yield from properties(part, name)


def faults(text: str) -> list[str]:
    return [error.json_path for error in CHECK.iter_errors(read_spec(text.encode()).values)]


def test_the_published_schema_is_that_of_the_models() -> None:
    published = (ROOT / "docs" / "deployment.schema.json").read_text(encoding="utf-8")
    assert published == shipped_schema(), "make it anew: longshore schema > docs/deployment.schema.json"


def test_it_is_a_schema_in_which_every_field_is_described() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    found = dict(properties(SCHEMA))
    assert len(found) > 60
    assert [path for path, field in found.items() if not field.get("description")] == []


@pytest.mark.parametrize(
    "text", [VALID, FULL, *(path.read_text() for path in sorted((ROOT / "examples").glob("*/deployment.yml")))]
)
def test_valid_files_are_valid_by_the_schema(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("name: digits", "nam: digits", "$"),
        ("memory: 512MiB", "memory: 512MOB", "$.deploy.resources.memory"),
        ("period: 500ms", "period: soon", "$.deploy.checks.readiness"),
        ("- profile: x86-cpu", "- profile: X86", "$.targets[0].profile"),
        ("- profile: x86-cpu", "- platform: linux/riscv64", "$.targets[0]"),
        ("host: auto", "host: aut", "$.deploy.network.ports[0].host"),
        ("http: {port: http, path: /healthz}", "deadline: 3s", "$.deploy.checks.readiness"),
    ],
)
def test_what_editors_are_to_underline_is_refused(old: str, new: str, where: str) -> None:
    assert old in VALID
    values = yaml.safe_load(VALID.replace(old, new))
    assert where in [error.json_path for error in CHECK.iter_errors(values)]


def test_profiles_are_proposed_and_others_may_be_named() -> None:
    field = SCHEMA["$defs"]["TargetSpec"]["properties"]["profile"]
    assert field["anyOf"][0] == {"enum": list(load_profiles())}
    assert faults(VALID.replace("x86-cpu", "of-this-site")) == []
