"""The pages about targets and runtimes say what the definitions say; `python -m tests.support.catalogue_tables` prints
what has to stand there."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from controller.builds.targets import TargetProfile, load_profiles
from controller.spec.loader import load_spec
from controller.spec.runtimes import RuntimeKind
from tests.support import catalogue_tables

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    "targets.md": [
        *catalogue_tables.profile_rows(),
        *catalogue_tables.profile_notes(),
        *catalogue_tables.distribution_rows(),
    ],
    "runtimes.md": [*catalogue_tables.runtime_rows(), *catalogue_tables.runtime_notes()],
}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_what_the_definitions_say(page: str) -> None:
    lines = (DOCS / page).read_text().splitlines()
    assert [line for line in PAGES[page] if line not in lines] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_nothing_of_what_is_not_there(page: str) -> None:
    rows = re.findall(r"^\| `[a-z0-9-]+` \|.*$", (DOCS / page).read_text(), re.MULTILINE)
    assert set(rows) <= set(PAGES[page])


@pytest.mark.parametrize("page", ["runtimes.md", "deployment-yml.md"])
def test_every_whole_spec_on_the_page_is_valid(page: str) -> None:
    examples = re.findall(r"```yaml\n(version: 1\n.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert examples
    for example in examples:
        assert load_spec(example.encode(), load_profiles()).targets


def test_every_fragment_on_the_page_of_specs_is_yaml() -> None:
    for fragment in re.findall(r"```yaml\n(.*?)```", (DOCS / "deployment-yml.md").read_text(), re.DOTALL):
        assert isinstance(yaml.safe_load(fragment), dict)


def test_examples_of_definitions_of_a_site_are_valid() -> None:
    assert TargetProfile.model_validate(example("targets.md", "conveyor-camera")).accelerator
    assert RuntimeKind.model_validate(example("runtimes.md", "lamp")).serves_models


def example(page: str, name: str) -> object:
    (found,) = re.findall(rf"```yaml\n(name: {name}\n.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return yaml.safe_load(found)


@pytest.mark.parametrize(("page", "model"), [("targets.md", TargetProfile), ("runtimes.md", RuntimeKind)])
def test_every_field_of_a_definition_is_explained(page: str, model: type[BaseModel]) -> None:
    rows = re.findall(r"^\| ([a-z_, ]+) \|.*\|$", (DOCS / page).read_text(), re.MULTILINE)
    assert set(model.model_fields) <= {name for row in rows for name in row.split(", ")}
