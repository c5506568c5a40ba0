"""Writes a `deployment.yml` of version 1, so that it reads back as the same."""

from collections.abc import Mapping
from typing import Any

import yaml

from controller.spec.loader import Reading
from controller.spec.messages import fields_at
from controller.spec.tree import Path, WrittenFloat, scalar_value

_TAGS = {type(None): "null", bool: "bool", int: "int", WrittenFloat: "float", str: "str"}


def written(reading: Reading) -> str:
    """The file in version 1: as short as it came, without comments; `read_spec` reads the same Spec from it."""
    return as_yaml(_in_order(reading.values, ()))


def as_yaml(values: Mapping[str, Any]) -> str:
    """YAML that `controller.spec.tree` reads as these values."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _in_order(value: Any, path: Path) -> Any:
    """With keys in the order in which the page about the file has them; those that users pick as they came."""
    if isinstance(value, list):
        return [_in_order(part, (*path, index)) for index, part in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    known = [name for name in fields_at(path) if name in value]
    return {name: _in_order(value[name], (*path, name)) for name in dict.fromkeys((*known, *value))}


class _Dumper(yaml.SafeDumper):
    """Quotes what the core schema of YAML 1.2 would not take for text; yaml's own knows YAML 1.1 only."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is not yaml.ScalarNode:
            return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return f"tag:yaml.org,2002:{_TAGS[type(scalar_value(value))] if implicit[0] else 'str'}"

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", str(value))


_Dumper.add_representer(WrittenFloat, _float)
