"""Definitions: YAML files that describe one thing each, shipped ones and those that an operator adds in a folder."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controller.errors import OperatorError
from controller.spec.messages import nearest, sentence

M = TypeVar("M", bound=BaseModel)


class InvalidDefinition(OperatorError):
    """Files that cannot be used; the text names each file and field, and what is allowed."""


def read_definitions(kind: type[M], shipped: str, folder: Path | None = None) -> Mapping[str, M]:
    """What `templates/SHIPPED/*.yaml` and `folder/*.yaml` describe, by name; the folder's override those of that name.

    A file's name is that of what it describes. Raises InvalidDefinition with all problems of all files.
    """
    found: dict[str, M] = {}
    problems: list[str] = []
    for path in _files(files("templates") / shipped, folder, problems):
        try:
            name, definition = _read(kind, path)
            found[name] = definition
        except InvalidDefinition as error:
            problems.append(str(error))
    if problems:
        raise InvalidDefinition("\n".join(problems))
    return MappingProxyType(dict(sorted(found.items())))


def _files(shipped: Traversable, folder: Path | None, problems: list[str]) -> Iterable[Traversable | Path]:
    yield from _yaml_files(shipped)
    if folder is None:
        return
    if not folder.is_dir():
        problems.append(f"{folder}: is no folder; make it, or take the setting out")
        return
    yield from _yaml_files(folder)


def _yaml_files(folder: Traversable | Path) -> list[Traversable | Path]:
    return sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)


def _read(kind: type[M], path: Traversable | Path) -> tuple[str, M]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidDefinition(f"{path}: cannot be read: {error}") from error
    try:
        definition = kind.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise InvalidDefinition("\n".join(f"{path}: {_problem(kind, detail)}" for detail in details)) from error
    name = path.name.removesuffix(".yaml")
    if content["name"] != name:
        raise InvalidDefinition(f"{path}: name: is {content['name']!r}; the file's name says {name!r}, make them equal")
    return name, definition


def _problem(kind: type[BaseModel], detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "file"
    if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
        known = tuple(kind.model_fields)
        return f"{where}: unknown key{nearest(where, known)}; allowed: {', '.join(known)}"
    return f"{where}: {sentence(detail)}"
