"""The form of a deployment.yml: every field of the models is in it, and what it proposes is accepted."""

import json
import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter

from controller.builds.targets import load_profiles
from controller.errors import InvalidSpec
from controller.rpc.build_catalogue import CatalogueCalls
from controller.rpc.build_parts import BuildParts
from controller.spec.deploy_model import PortSpec
from controller.spec.form import FormAlternative, FormField, _Walk, build_form
from controller.spec.loader import load_spec
from controller.spec.model import Spec
from controller.spec.runtimes import load_runtimes
from longshore.v1 import build_pb2, types_pb2

TYPES = {"string", "integer", "number", "boolean", "duration", "size", "path", "list", "map", "section", "json"}
FORM = build_form({})
BY_PATH = {field.path: field for field in FORM}


def paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        yield path
        for listed, kind in models(field.annotation):
            yield from paths(kind, f"{path}{'[]' if listed else ''}.")


def models(annotation: Any, listed: bool = False) -> list[tuple[bool, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(listed, annotation)]
    inside = listed or getattr(annotation, "__origin__", None) is list
    return [found for part in get_args(annotation) for found in models(part, inside)]


def unions(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Path and kinds of values of every field of several kinds; null is none, since it is as if left out."""
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        if get_origin(field.annotation) in (Union, UnionType):
            yield path, tuple(kind for kind in get_args(field.annotation) if kind is not type(None))
        for listed, kind in models(field.annotation):
            yield from unions(kind, f"{path}{'[]' if listed else ''}.")


UNIONS = dict(unions(Spec))


def told(kind: Any) -> tuple[str, tuple[str, ...]]:
    """Type and choices that a form has to tell of a kind of values."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section", ()
    schema = TypeAdapter(kind).json_schema()
    choices = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return schema.get("format", schema["type"]), tuple(choices)


def kinds_of(field: FormField) -> list[FormField | FormAlternative]:
    return [field, *field.alternatives]


def takes(kind: FormField | FormAlternative, value: object) -> bool:
    """Whether a page that knows only the form would let a person write the value: that of a number or a text."""
    if kind.type in ("integer", "number"):
        low, high = kind.minimum, kind.maximum
        return isinstance(value, int) and (low is None or low <= value) and (high is None or value <= high)
    fits = isinstance(value, str) and re.fullmatch(kind.pattern or ".*", value) is not None
    return fits and (not kind.choices or value in kind.choices)


def accepted(path: str, value: object) -> bool:
    """Whether a file may say it."""
    try:
        load_spec(json.dumps(spec_with(path, value)).encode())
    except InvalidSpec:
        return False
    return True


def test_every_field_of_the_models_is_in_the_form() -> None:
    assert set(paths(Spec)) - set(BY_PATH) == set()
    made_up = {field.path for field in FORM if not field.path.endswith(("[]", ".*"))} - set(paths(Spec))
    assert made_up == set()


def test_every_field_has_a_known_type_a_title_and_words_of_help() -> None:
    assert {field.type for field in FORM} <= TYPES
    assert [field.path for field in FORM if not field.title or not field.help] == []


def test_fields_come_in_the_order_in_which_they_are_filled_in() -> None:
    order = [field.path for field in FORM]
    wanted = ["version", "name", "targets", "build", "build.runtime", "build.packages", "deploy", "deploy.entrypoint"]
    assert sorted(wanted, key=order.index) == wanted


def spec_with(path: str, value: Any) -> dict[str, Any]:
    """A spec that is valid without the field, and the field in it."""
    inference = {"port": "http", "path": "/infer", "request": {}, "expect": {}}
    checks: dict[str, Any] = {
        ".http": {"http": {"port": "http"}},
        ".inference": {"inference": {**inference}},
        "": {"command": {"command": ["true"]}},
    }
    check = next(given for part, given in checks.items() if part in path)
    spec: dict[str, Any] = {
        "version": 1,
        "name": "digits",
        "build": {
            "base": "docker.io/library/debian:12",
            "packages": {"conda": {"packages": ["numpy"]}},
            "runtime": {"kind": "python"},
        },
        "deploy": {
            "entrypoint": ["true"],
            "network": {"ports": [{"name": "http", "container": 8080}]},
            "checks": {"readiness": check, "liveness": {**check}},
            "mounts": [{"src": "/a", "dst": "/b"}],
            "volumes": [{"name": "data", "dst": "/data"}],
            "secrets": [{"name": "token"}],
        },
        "targets": [{"profile": "x86-cpu"}],
    }
    here: Any = spec
    *above, last = path.replace("[]", ".[]").split(".")
    for part in above:
        here = here[0] if part == "[]" else here.setdefault(part, {})
    here[last] = value
    return spec


@pytest.mark.parametrize("path", UNIONS)
def test_every_kind_of_values_of_a_field_is_told(path: str) -> None:
    field = BY_PATH[path]
    assert [(kind.type, kind.choices) for kind in kinds_of(field)] == list(map(told, UNIONS[path]))


def test_only_fields_of_several_kinds_have_alternatives() -> None:
    several = {path for path, kinds in UNIONS.items() if len(kinds) > 1}
    assert {field.path for field in FORM if field.alternatives} == several
    assert several


@pytest.mark.parametrize("value", [1, 8080, 65535, 0, 65536, -1, "auto", "Auto", "8080", "", True])
def test_a_port_of_the_device_is_what_the_form_says_that_it_may_be(value: object) -> None:
    field = BY_PATH["deploy.network.ports[].host"]
    said = not isinstance(value, bool) and any(takes(kind, value) for kind in kinds_of(field))
    assert accepted(field.path, value) is said


def test_a_field_with_fields_of_its_own_is_not_one_of_several_kinds() -> None:
    class Strange(Spec):
        either: int | PortSpec = 1

    with pytest.raises(ValueError, match="as one of several kinds of values"):
        list(_Walk(Strange.model_json_schema()["$defs"], {}).members("", Strange.model_json_schema()))


@pytest.mark.parametrize("field", [field for field in FORM if field.default_json], ids=lambda field: field.path)
def test_every_default_is_what_a_file_may_say(field: FormField) -> None:
    written = spec_with(field.path, json.loads(field.default_json))
    assert load_spec(json.dumps(written).encode()).name == "digits"


@pytest.mark.parametrize("field", [field for field in FORM if field.pattern and field.example], ids=lambda f: f.path)
def test_every_example_matches_its_pattern(field: FormField) -> None:
    examples = json.loads(field.example) if field.type == "map" else [field.example]
    assert [text for text in examples if not re.fullmatch(field.pattern, text)] == []


def test_a_field_says_all_that_a_page_needs() -> None:
    assert BY_PATH["name"].required
    assert BY_PATH["build.timeout"].default_json == '"2h"'
    assert BY_PATH["build.minimum.memory"].type == "size"
    assert BY_PATH["build.files[]"].type == "path"
    assert BY_PATH["deploy.restart"].choices == ("always", "on-failure", "never")
    assert (BY_PATH["deploy.network.ports[].container"].minimum, BY_PATH["targets"].maximum) == (1, 64)
    assert BY_PATH["build.packages.apt"].example == "libgomp1"


class Parts:
    profiles = load_profiles()


def calls() -> CatalogueCalls:
    parts: BuildParts = Parts()  # type: ignore[assignment]  # all that these calls look at
    return CatalogueCalls(parts)


async def test_the_form_names_the_choices_of_this_server() -> None:
    answer = await calls().GetBuildForm(build_pb2.GetBuildFormRequest(), None)
    fields = {field.path: field for field in answer.fields}
    assert list(fields["targets[].profile"].choices) == list(load_profiles())
    assert list(fields["build.runtime.kind"].choices) == list(load_runtimes())
    assert "debian-bookworm" in fields["build.distribution"].choices
    host = fields["deploy.network.ports[].host"]
    assert (host.type, host.minimum, host.maximum) == ("integer", 1, 65535)
    assert [(other.type, list(other.choices)) for other in host.alternatives] == [("string", ["auto"])]
    assert not host.alternatives[0].HasField("minimum")
    assert fields["targets"].maximum == 64
    assert not fields["name"].HasField("minimum")


async def test_profiles_and_runtimes_are_listed_with_each_other() -> None:
    profiles = (await calls().ListTargetProfiles(build_pb2.ListTargetProfilesRequest(), None)).profiles
    runtimes = (await calls().ListRuntimes(build_pb2.ListRuntimesRequest(), None)).runtimes
    by_name = {profile.name: profile for profile in profiles}
    assert by_name["jetson-orin"].accelerator == "nvidia.com/gpu"
    assert "not run" in by_name["jetson-orin"].notes
    assert list(by_name["jetson-nano"].artifacts) == [types_pb2.ARTIFACT_KIND_IMAGE]
    assert by_name["x86-cpu"].bases["debian-bookworm"] == by_name["x86-cpu"].base
    by_kind = {runtime.kind: runtime for runtime in runtimes}
    assert by_kind["onnx"].serves_models
    assert set(by_kind["tensorrt"].profiles) == {"jetson-nano", "jetson-orin", "jetson-xavier", "x86-cuda"}
    assert {kind for kind, one in by_kind.items() if "odroid-m1" in one.profiles} == set(by_name["odroid-m1"].engines)
