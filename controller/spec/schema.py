"""The JSON Schema of `deployment.yml`, version 1, made from the models, for editors: completion, descriptions, limits.

It takes whatever `controller.spec.loader` takes; what only the loader can tell (such as two ports of one name) it does
not refuse.
"""

import json
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from controller.spec.fields import DURATION, PLATFORM_PROFILES, SIZE
from controller.spec.form import span_text
from controller.spec.model import Spec

_SPAN = TypeAdapter(timedelta)
_SCALARS = ["string", "number", "boolean"]
_PROBES = ("http", "tcp", "command", "inference")
# Where values are proposed that are not the only ones: an installation may have more.
PROFILE = "TargetSpec.profile"
RUNTIME = "RuntimeSpec.kind"

Schema = dict[str, Any]


def json_schema(choices: Mapping[str, Collection[str]]) -> Schema:
    """The schema, by draft 2020-12. `choices`: values to propose for PROFILE and RUNTIME."""
    made = _adapted(Spec.model_json_schema())
    definitions = made["$defs"]
    for path, values in choices.items():
        model, _, name = path.partition(".")
        field = definitions[model]["properties"][name]
        told = {key: field.pop(key) for key in ("type", "pattern") if key in field}
        field["anyOf"] = [{"enum": list(values)}, told]
    for section in (made, *definitions.values()):
        _describe(section, definitions)
    _target(definitions["TargetSpec"])
    definitions["CheckSpec"]["oneOf"] = [_only(probe) for probe in _PROBES]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:longshore:deployment:1",
        **made,
        "title": "deployment.yml, version 1",
        "description": "How a model's service is built, how it runs, and on which devices.",
    }


def schema_text(choices: Mapping[str, Collection[str]]) -> str:
    """The schema as it is printed and published."""
    return json.dumps(json_schema(choices), indent=2, ensure_ascii=False) + "\n"


def _adapted(schema: Any) -> Any:
    """With what the models' own schema does not know: what is read besides, and in which words."""
    if isinstance(schema, list):
        return [_adapted(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: value if key in ("default", "examples") else _adapted(value) for key, value in schema.items()}
    if schema.get("type") == "json":
        del made["type"]
    told = _KINDS.get(str(schema.get("format")), _unchanged)(made)
    told.pop("ge", None)
    return told


def _unchanged(schema: Schema) -> Schema:
    return schema


def _duration(schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key not in ("type", "format")}
    if kept.get("default") is not None:
        kept["default"] = span_text(_SPAN.validate_python(kept["default"]))
    kinds = [{"type": "string", "pattern": DURATION.pattern}, {"type": "number", "minimum": 0}]
    return {**kept, "anyOf": kinds}


def _size(schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key not in ("type", "format", "minimum", "ge")}
    kinds = [{"type": "string", "pattern": SIZE.pattern}, {"type": "integer", "minimum": 0}]
    return {**kept, "anyOf": kinds}


def _path(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "format"}


def _text(schema: Schema) -> Schema:
    """Numbers and yes or no may be written without quotes."""
    return {**_path(schema), "type": _SCALARS}


_KINDS = {"duration": _duration, "size": _size, "path": _path, "text": _text}


def _target(target: Schema) -> None:
    """A plain platform stands for its profile, where there is none."""
    target["required"] = [name for name in target.get("required", ()) if name != "profile"]
    target["oneOf"] = [
        {"required": ["profile"], "properties": {"platform": {"type": "null"}}},
        {"required": ["platform"], "properties": {"platform": {"enum": list(PLATFORM_PROFILES)}, "profile": False}},
    ]


def _describe(section: Schema, definitions: Schema) -> None:
    """Each field that refers to a section has that one's description, where it has none of its own."""
    for field in section.get("properties", {}).values():
        if "$ref" in field and "description" not in field:
            field["description"] = definitions[field["$ref"].rpartition("/")[2]]["description"]


def _only(probe: str) -> Schema:
    others = {name: {"type": "null"} for name in _PROBES if name != probe}
    return {"required": [probe], "properties": {probe: {"type": "object"}, **others}}
