"""Every field of a `deployment.yml`, described from the models themselves, so that a form can be drawn from it."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from controller.spec.model import Spec

# As a person fills them in; below these the models' own order.
FIRST = ("version", "name", "targets", "build", "deploy")
_TYPES = {"array": "list", "object": "map"}
_FORMATS = ("duration", "size", "path")
_WORDS = {"pypi": "PyPI", "cpu": "CPU", "http": "HTTP", "tcp": "TCP", "apt": "apt", "dnf": "dnf", "apk": "apk"}
_UNITS = (("h", 3600), ("m", 60), ("s", 1))
_SPAN = TypeAdapter(timedelta)

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class FormAlternative:
    """As `longshore.v1.FormAlternative`; bounds are None where there are none."""

    type: str
    choices: tuple[str, ...]
    pattern: str
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class FormField:
    """As `longshore.v1.FormField`; bounds are None where there are none."""

    path: str
    type: str
    title: str
    help: str
    default_json: str
    required: bool
    choices: tuple[str, ...]
    pattern: str
    minimum: float | None
    maximum: float | None
    example: str
    alternatives: tuple[FormAlternative, ...]


def build_form(choices: Mapping[str, Collection[str]]) -> tuple[FormField, ...]:
    """All fields, in the order in which a person would fill them in. `choices`: of paths whose values are known only
    at run time, such as the target profiles for "targets[].profile"."""
    schema = Spec.model_json_schema()
    properties = schema["properties"]
    top = {**schema, "properties": {name: properties[name] for name in (*FIRST, *properties) if name in properties}}
    return tuple(_Walk(schema.get("$defs", {}), choices).members("", top))


class _Walk:
    """Goes through the JSON Schema of the models."""

    def __init__(self, definitions: Schema, choices: Mapping[str, Collection[str]]) -> None:
        self._definitions = definitions
        self._choices = choices

    def members(self, path: str, schema: Schema) -> Iterator[FormField]:
        """The fields of a section."""
        for name, part in schema["properties"].items():
            below = f"{path}.{name}" if path else name
            yield from self._field(below, _title(name), part, required=name in schema.get("required", ()))

    def _field(self, path: str, title: str, part: Schema, *, required: bool) -> Iterator[FormField]:
        schema, *others = self._kinds(part)
        kind = "section" if "properties" in schema else _type(schema)
        keys, values = next(iter(schema.get("patternProperties", {}).items()), ("", {}))
        yield FormField(
            path,
            kind,
            title,
            schema.get("description", "").partition("\n")[0],
            _default(schema, kind),
            required,
            tuple(self._choices.get(path, _choices(schema))),
            schema.get("pattern", keys),
            *_bounds(schema),
            _text(next(iter(schema.get("examples", [])), "")),
            tuple(map(_alternative, others)),
        )
        if kind == "section":
            yield from self.members(path, schema)
        elif kind == "list":
            entry = {"description": schema.get("description", ""), **schema["items"]}
            yield from self._field(f"{path}[]", f"{title}: an entry", entry, required=False)
        elif kind == "map":
            value = {"description": schema.get("description", ""), **values}
            yield from self._field(f"{path}.*", f"{title}: a value", value, required=False)

    def _kinds(self, part: Schema) -> list[Schema]:
        """A schema for each kind of value that it takes, but null, which stands for something left out. What stands
        beside a reference, or beside the kinds, wins."""
        beside = {key: value for key, value in part.items() if key not in ("$ref", "anyOf")}
        if "$ref" in part:
            return [{**self._definitions[part["$ref"].rpartition("/")[2]], **beside}]
        if "anyOf" in part:
            told = [kind for kind in part["anyOf"] if kind.get("type") != "null"]
            return [{**schema, **beside} for kind in told for schema in self._kinds(kind)]
        return [beside]


def _alternative(schema: Schema) -> FormAlternative:
    """Raises ValueError for what has fields of its own, which a form has no place for."""
    if _type(schema) in _TYPES.values():
        raise ValueError(f"a form cannot show {schema.get('title', 'this')} as one of several kinds of values")
    return FormAlternative(_type(schema), _choices(schema), schema.get("pattern", ""), *_bounds(schema))


def _title(name: str) -> str:
    words = [_WORDS.get(word, word) for word in name.split("_")]
    first = words[0] if words[0] in _WORDS.values() else words[0].capitalize()
    return " ".join([first, *words[1:]])


def _type(schema: Schema) -> str:
    told = str(schema.get("format") or schema["type"])
    return told if told in _FORMATS else _TYPES.get(schema["type"], str(schema["type"]))


def _choices(schema: Schema) -> tuple[str, ...]:
    return tuple(map(str, [schema["const"]] if "const" in schema else schema.get("enum", ())))


def _default(schema: Schema, kind: str) -> str:
    """In JSON; "" for none, and for a section, whose fields have theirs."""
    value = schema.get("default")
    if value is None or kind == "section":
        return ""
    return json.dumps(span_text(_SPAN.validate_python(value)) if kind == "duration" else value)


def span_text(span: timedelta) -> str:
    """As a file has it: 2h, 90s."""
    seconds = int(span.total_seconds())
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _bounds(schema: Schema) -> tuple[float | None, float | None]:
    return (
        _bound(schema, "minimum", "exclusiveMinimum", "ge", "minItems"),
        _bound(schema, "maximum", "exclusiveMaximum", "le", "maxItems"),
    )


def _bound(schema: Schema, *names: str) -> float | None:
    return next((float(schema[name]) for name in names if name in schema), None)


def _text(example: object) -> str:
    return example if isinstance(example, str) else json.dumps(example)
