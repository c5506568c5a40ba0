"""What differs between two specs, field by field. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.builds.model import ContextFile
from controller.spec.model import Spec

# Entries of lists that have one of these are told apart by it, and not by where they stand.
NAMES = ("name", "key", "profile", "path")


@dataclass(frozen=True)
class FieldChange:
    """One field that differs; values as JSON, None where the field is not there."""

    path: str
    before: str | None
    after: str | None


def spec_changes(before: Spec, after: Spec) -> list[FieldChange]:
    """Fields that differ, in the order of their paths. Defaults are filled in on both sides, so that a spec which says
    the same in other words differs in nothing."""
    return changes(before.model_dump(mode="json"), after.model_dump(mode="json"))


def file_changes(before: Sequence[ContextFile], after: Sequence[ContextFile]) -> list[FieldChange]:
    """Files whose content differs: their digests."""
    old, new = ({file.path: file.digest for file in files} for files in (before, after))
    return _differing({f"files[{path}]": value for path, value in old.items()},
                      {f"files[{path}]": value for path, value in new.items()})  # fmt: skip


def changes(before: object, after: object) -> list[FieldChange]:
    """What differs between two documents of JSON."""
    return _differing(_flat(before), _flat(after))


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[FieldChange]:
    paths = [path for path in sorted(before.keys() | after.keys()) if _json(before, path) != _json(after, path)]
    return [FieldChange(path, _json(before, path), _json(after, path)) for path in paths]


def _json(values: Mapping[str, Any], path: str) -> str | None:
    return json.dumps(values[path], ensure_ascii=False) if path in values else None


def _flat(value: object, path: str = "") -> dict[str, Any]:
    """Each leaf by its path. What is empty, or not given, is no leaf: there is nothing of it to differ."""
    parts = _parts(value, path)
    if parts is None:
        return {} if value is None else {path: value}
    found: dict[str, Any] = {}
    for where, part in parts:
        found.update(_flat(part, where))
    return found


def _parts(value: object, path: str) -> list[tuple[str, object]] | None:
    if isinstance(value, dict):
        return [(f"{path}.{key}" if path else str(key), part) for key, part in value.items()]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        keys = _keys(value)
        return [(f"{path}[{key}]", part) for key, part in zip(keys, value, strict=True)]
    return [] if value == [] else None


def _keys(entries: list[Any]) -> list[str]:
    """What tells the entries of a list apart: a name that each has and no two share, else their positions."""
    for name in NAMES:
        values = [entry.get(name) if isinstance(entry, dict) else None for entry in entries]
        if all(isinstance(value, str) for value in values) and len(set(values)) == len(values):
            return [str(value) for value in values]
    return [str(position) for position in range(len(entries))]
