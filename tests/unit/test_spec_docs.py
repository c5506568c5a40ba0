"""The page about deployment.yml speaks of every key, and its example is valid."""

import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from controller.spec.dialects.tango import KEYS
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from tests.support.older_forms_tables import tables

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "deployment-yml.md").read_text()


def keys(model: type[BaseModel]) -> set[str]:
    """Every key that a file may have, at any level."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for kind in models(field.annotation):
            found |= keys(kind)
    return found


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in models(part)]


def test_every_key_is_explained() -> None:
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    explained = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", prose))))
    assert keys(Spec) <= explained


def test_example_is_valid() -> None:
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    assert load_spec(example.encode()).name == "digits"


def test_page_of_older_forms_has_the_tables_of_the_code_and_every_key() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "older-forms.md").read_text()
    for name, table in tables().items():
        assert table in page, f"{name}: python -m tests.support.older_forms_tables prints it"
    named = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    known = {part for path, names in KEYS.items() for part in (*path, *names)}
    assert known <= {part for text in named for part in re.split(r"[^a-z0-9_]+", text)}
