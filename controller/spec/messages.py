"""What pydantic found wrong, in plain sentences: what is wrong, and what is allowed."""

import difflib
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from controller.spec import fields, image_names
from controller.spec.model import Spec

_PATTERNS = {
    fields.NAME: "expected 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends",
    fields.APT_PACKAGE: "expected a Debian package such as libgomp1 or libgomp1=12.2.0-14",
    fields.PYPI_REQUIREMENT: "expected a Python package such as numpy, numpy>=1.26,<3 or uvicorn[standard]==0.30.*",
    fields.ENV_NAME: "expected a variable name: letters, digits and '_', not beginning with a digit",
    image_names.IMAGE: "expected an image such as docker.io/library/python:3.11-slim-bookworm",
    fields.LABEL: "expected a label: 1 to 63 letters, digits, '.', '_', '/' and '-', a letter or digit at both ends",
    fields.DNF_PACKAGE: "expected a package such as libgomp or libgomp-14.2.1",
    fields.APK_PACKAGE: "expected an Alpine package such as libgomp or libgomp=13.2.1-r0",
    fields.CONDA_PACKAGE: "expected a conda package such as numpy or numpy=1.26",
    fields.CONDA_CHANNEL: "expected a channel such as conda-forge, or an https URL",
    fields.INDEX_URL: "expected an http or https URL without user and password, such as https://pypi.example/simple",
    fields.LABEL_KEY: "expected a key such as com.example.team: letters, digits, '.', '_', '/' and '-'",
    fields.TAG: "expected a tag such as v1.0: 1 to 128 letters, digits, '.', '_' and '-'",
    fields.SECRET_NAME: "expected a name of lower-case letters, digits, '.', '_' and '-'",
    fields.CDI_KIND: "expected a CDI kind such as nvidia.com/gpu",
    fields.CPU_SET: "expected cores such as 0-3 or 0,2",
    fields.MEDIA_TYPE: "expected a media type such as application/json",
    fields.HTTP_PATH: "expected a path that begins with '/', such as /healthz, without spaces",
}
_MISSING = {
    "version": "write `version: 1`",
    "name": "give it a name, such as `name: digits`",
    "targets": "say for which devices, such as `targets: [{profile: x86-cpu}]`",
    "profile": "name a target profile, such as x86-cpu, or a platform, such as linux/arm64",
    "kind": "name a runtime, such as onnx",
    "container": "name the port on which the service listens",
    "port": "name one of deploy.network.ports",
}


def sentence(error: ErrorDetails) -> str:
    """One problem in words. A kind of error that the table does not know keeps pydantic's own words."""
    translate = _TABLE.get(error["type"])
    return translate(error, error.get("ctx", {})) if translate else error["msg"]


def unknown_key(key: str, allowed: Collection[str]) -> str:
    """An unknown key, the nearest known one, and all that are allowed."""
    meant = _SYNONYMS.get(key.lower(), "")
    hint = f"; did you mean '{meant}'?" if meant in allowed else nearest(key, allowed)
    return f"unknown key{hint}; allowed: {', '.join(sorted(allowed))}"


# Words of other tools for keys that have no letters in common with ours.
_SYNONYMS = {
    "env": "environment",
    "envs": "environment",
    "command": "entrypoint",
    "cmd": "entrypoint",
    "args": "entrypoint",
    "dependencies": "packages",
    "requirements": "pypi",
    "pip": "pypi",
    "strategy": "update",
    "selector": "labels",
    "node_selector": "labels",
    "count": "replicas",
    "healthcheck": "checks",
    "health": "checks",
    "port": "ports",
    "source": "src",
    "destination": "dst",
    "target": "dst",
    "work_dir": "workdir",
}


def nearest(word: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` where something known is near, else nothing."""
    lowered = {name.lower(): name for name in known}
    if found := difflib.get_close_matches(word.lower().replace("_", "-"), lowered, 1, 0.6):
        return f"; did you mean '{lowered[found[0]]}'?"
    if found := difflib.get_close_matches(word.lower(), lowered, 1, 0.6):
        return f"; did you mean '{lowered[found[0]]}'?"
    return ""


def fields_at(path: Collection[str | int]) -> Collection[str]:
    """The keys that the models allow below a path; empty where it is no mapping with fixed keys."""
    kind: Any = Spec
    for part in path:
        kind = _step(kind, part)
    return tuple(kind.model_fields) if _is_model(kind) else ()


def _step(kind: Any, part: str | int) -> Any:
    if _is_model(kind) and part in kind.model_fields:
        return _bare(kind.model_fields[str(part)].annotation)
    if get_origin(kind) in (list, dict):
        return _bare(get_args(kind)[-1])
    return None


def _bare(annotation: Any) -> Any:
    """The model or container inside of Annotated and `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next((_bare(part) for part in get_args(annotation) if part is not type(None)), None)
    return annotation


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}'" if len(text) <= 60 else f"'{text[:57]}...'"


def _but_got(expected: str) -> Callable[[ErrorDetails, Mapping[str, Any]], str]:
    return lambda error, _: f"expected {expected}, not {_shown(error['input'])}"


def _bound(words: str, key: str) -> Callable[[ErrorDetails, Mapping[str, Any]], str]:
    return lambda error, ctx: f"{_shown(error['input'])} is not allowed; expected {words} {_limit(ctx[key])}"


def _limit(value: object) -> str:
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"{value // 2**20}MiB"
    return str(value)


def _missing(error: ErrorDetails, _: Mapping[str, Any]) -> str:
    hint = _MISSING.get(str(error["loc"][-1]), "")
    return f"required, and missing{'; ' if hint else ''}{hint}"


def _pattern(error: ErrorDetails, ctx: Mapping[str, Any]) -> str:
    allowed = _PATTERNS.get(ctx["pattern"], f"expected text that matches {ctx['pattern']}")
    return f"{_shown(error['input'])} is not allowed; {allowed}"


def _literal(error: ErrorDetails, ctx: Mapping[str, Any]) -> str:
    choices = str(ctx["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
    near = nearest(str(error["input"]), choices) if isinstance(error["input"], str) else ""
    return f"expected {' or '.join(choices)}, not {_shown(error['input'])}{near}"


def _length(words: str, key: str) -> Callable[[ErrorDetails, Mapping[str, Any]], str]:
    return lambda error, ctx: f"expected {words.format(ctx[key])}"


_TABLE: dict[str, Callable[[ErrorDetails, Mapping[str, Any]], str]] = {
    "missing": _missing,
    "string_pattern_mismatch": _pattern,
    "literal_error": _literal,
    "string_type": lambda error, _: f"expected text, not {_shown(error['input'])}{_quote_it(error['input'])}",
    "string_too_long": _length("at most {} characters", "max_length"),
    "string_too_short": _length("at least {} character", "min_length"),
    "too_long": _length("at most {} entries", "max_length"),
    "too_short": _length("at least {} entry", "min_length"),
    "int_type": _but_got("a whole number"),
    "int_parsing": _but_got("a whole number"),
    "int_from_float": _but_got("a whole number"),
    "float_type": _but_got("a number"),
    "float_parsing": _but_got("a number"),
    "finite_number": _but_got("a number"),
    "bool_type": _but_got("true or false"),
    "bool_parsing": _but_got("true or false"),
    "list_type": _but_got("a list"),
    "dict_type": _but_got("a mapping"),
    "model_type": _but_got("a mapping"),
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "value_error": lambda error, ctx: f"{_shown(error['input'])}: {ctx['error']}",
}


def _quote_it(value: object) -> str:
    return "; put it in quotes" if isinstance(value, int | float) else ""
