"""Closed sets are closed: what the code knows, the contract and the pages know too."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf.descriptor import EnumDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from pydantic import BaseModel

from baremetal_agent.main import PROGRAM as BAREMETAL
from controller import errors
from controller.builds.model import BuildState
from controller.deployments.model import DeploymentState
from controller.devices.model import Presence, Scheduling
from controller.events.model import EventKind
from controller.rpc.errors import CODES
from controller.rpc.permissions import PERMISSIONS
from controller.settings import Settings
from edge_agent.main import PROGRAM as EDGE
from edge_agent.runtime.fail_points import POINTS
from edge_agent.runtime.model import State
from edge_agent.runtime.plan import Step
from edge_agent.runtime.settings import NOT_SET, AgentSettings
from longshore.errors import Reason
from longshore.topics import RULES, Topic
from longshore.v1 import agent_pb2, build_pb2, deployment_pb2, device_pb2, event_pb2, types_pb2, volume_pb2
from tests.support.fault_scenarios import CASES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CODE = ("controller", "edge_agent", "baremetal_agent", "protos/longshore")

# Domain enum -> its enum of the contract, and the prefix of that one's names.
STATES: list[tuple[type[StrEnum], EnumDescriptor, str]] = [
    (BuildState, build_pb2.DESCRIPTOR.enum_types_by_name["BuildState"], "BUILD_STATE_"),
    (DeploymentState, deployment_pb2.DESCRIPTOR.enum_types_by_name["DeploymentState"], "DEPLOYMENT_STATE_"),
    (Presence, device_pb2.DESCRIPTOR.enum_types_by_name["DevicePresence"], "DEVICE_PRESENCE_"),
    (Scheduling, device_pb2.DESCRIPTOR.enum_types_by_name["DeviceScheduling"], "DEVICE_SCHEDULING_"),
    (EventKind, event_pb2.DESCRIPTOR.enum_types_by_name["EventKind"], "EVENT_KIND_"),
    (State, types_pb2.DESCRIPTOR.enum_types_by_name["InstanceState"], "INSTANCE_STATE_"),
]

# Calls that give a state its reason: name -> the positions at which the reason may stand.
REASON_CALLS = {
    "BuildFailed": (0,),
    "failed": (0,),
    "BackendError": (0,),
    "BackendUnavailable": (0,),
    "CannotServe": (0,),
    "Condition": (1,),
    "Failure": (1,),
    "_leaving": (3,),
    "_say": (2,),
    "_set_presence": (3,),
    "lose_sight": (1,),
}
# UpperCamelCase; and such a word before a colon.
CAMEL = r"([A-Z][a-z]+)+"
HEAD = re.compile(r"([A-Z][a-z]+(?:[A-Z][a-z]+)+): ")
# A domain error and the reason that it is raised with.
RAISED = re.compile(rf"\b({'|'.join(kind.__name__ for kind in CODES)})\(\s*Reason\.(\w+)")
# The shipped double of a backend speaks for no engine that a user has.
NOT_FOR_USERS = {"fake_backend.py"}


def words(page: str) -> set[str]:
    """Everything that the page says in `code`."""
    text = (DOCS / page).read_text()
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def sources() -> Iterator[Path]:
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            if "_pb2" not in path.name and path.name not in NOT_FOR_USERS:
                yield path


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def reasons_in(tree: ast.AST) -> Iterator[str]:
    """Reasons of states: in the calls above, given or assigned to a `reason`, answered by a function of reasons,
    named by a constant, or at the head of a condition ("PodmanFails: ...")."""
    for node in ast.walk(tree):
        for value in _reason_values(node):
            for text in _constants(value):
                if re.fullmatch(CAMEL, text):
                    yield text
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (head := HEAD.match(node.value)):
            yield head[1]


def _reason_values(node: ast.AST) -> Iterator[ast.expr]:
    """Where in this node a reason may stand."""
    if isinstance(node, ast.Call):
        name = _name(node.func)
        yield from (node.args[at] for at in REASON_CALLS.get(name, ()) if at < len(node.args))
        yield from (keyword.value for keyword in node.keywords if keyword.arg in ("reason", "exit_reason"))
    elif isinstance(node, ast.Assign) and (_is_reason(node.targets[0]) or _name(node.targets[0]).isupper()):
        yield node.value
    elif isinstance(node, ast.FunctionDef) and "reason" in node.name:
        yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value)


def _is_reason(target: ast.expr) -> bool:
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return any(_name(part) == "reason" for part in parts)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _constants(value: ast.expr) -> Iterator[str]:
    """Texts that the expression may give; those that it only compares with are none."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp | ast.BoolOp | ast.Tuple):
        parts = {ast.IfExp: ("body", "orelse"), ast.BoolOp: ("values",), ast.Tuple: ("elts",)}[type(value)]
        for part in parts:
            held = getattr(value, part)
            for child in held if isinstance(held, list) else [held]:
                yield from _constants(child)


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Names of all settings as a person writes them: "builds.parallel"."""
    for name, field in model.model_fields.items():
        part = next((kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)), None)
        if part is None:
            yield prefix + name
        else:
            yield from settings_of(part, f"{prefix}{name}.")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def contract_methods() -> set[str]:
    """Every RPC that the controller serves, as gRPC names it."""
    files = [agent_pb2, build_pb2, deployment_pb2, device_pb2, event_pb2, volume_pb2, health_pb2, reflection_pb2]
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.match(r"[A-Za-z0-9-]+", text) for group in groups for text in group}
    return {name[0] for name in names if name} - {"longshore"}


def system_packages() -> set[str]:
    found = re.search(r"PACKAGES=\((.*?)\)", (ROOT / "tools" / "setup.sh").read_text(), re.DOTALL)
    assert found
    return set(found[1].split())


def test_every_reason_of_a_failed_call_is_given_by_some_code() -> None:
    code = "\n".join(path.read_text() for path in sources())
    assert {reason for reason in Reason if f"Reason.{reason.name}" not in code} == set()


def test_every_reason_of_a_failed_call_is_explained() -> None:
    assert {reason.value for reason in Reason} <= words("errors.md")


def test_page_of_errors_names_no_reason_that_does_not_exist() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert set(named) == {reason.value for reason in Reason}


def test_page_of_errors_has_the_codes_with_which_reasons_are_raised() -> None:
    raised = {(kind, reason) for path in sources() for kind, reason in RAISED.findall(path.read_text())}
    assert ("NotFound", "NO_SUCH_BUILD") in raised
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", (DOCS / "errors.md").read_text(), re.MULTILINE))
    for kind, reason in raised:
        assert f"`{CODES[getattr(errors, kind)].name}`" in rows[reason], f"{kind} {reason}"


def test_every_domain_error_has_a_status_code() -> None:
    raised = {kind for kind in subclasses(errors.DomainError) if kind.__module__ == errors.__name__}
    assert raised == set(CODES)


def test_every_topic_has_a_rule_and_is_explained() -> None:
    assert set(RULES) == set(Topic)
    explained = (DOCS / "topics.md").read_text()
    for topic, rule in RULES.items():
        retained = "yes" if rule.retain else "no"
        cells = (f"`{topic}`", f"`{rule.payload.DESCRIPTOR.name}`", str(rule.qos), retained, rule.publisher)
        assert f"| {' | '.join(cells)} |" in explained


def test_every_call_about_builds_is_in_the_python_client_and_on_the_page_of_grpcurl() -> None:
    calls = set(build_pb2.DESCRIPTOR.services_by_name["BuildService"].methods_by_name)
    client = (ROOT / "protos" / "longshore" / "builds.py").read_text()
    page = (DOCS / "grpcurl.md").read_text()
    assert {name for name in calls if f"self._builds.{name}" not in client} == set()
    assert {name for name in calls if f"longshore.v1.BuildService/{name}" not in page} == set()


def test_every_call_about_volumes_is_in_the_python_client_and_on_the_page_of_grpcurl() -> None:
    calls = set(volume_pb2.DESCRIPTOR.services_by_name["VolumeService"].methods_by_name)
    client = (ROOT / "protos" / "longshore" / "volumes.py").read_text()
    page = (DOCS / "grpcurl.md").read_text()
    assert {name for name in calls if f"self._volumes.{name}" not in client} == set()
    assert {name for name in calls if f"longshore.v1.VolumeService/{name}" not in page} == set()


def test_permissions_are_given_for_every_call_and_for_no_other() -> None:
    assert set(PERMISSIONS) == contract_methods()


def test_every_setting_of_the_controller_is_explained() -> None:
    assert set(settings_of(Settings)) <= words("operators.md")


def test_every_setting_of_the_agent_is_explained() -> None:
    own = {option.name for program in (EDGE, BAREMETAL) for option in program.options}
    assert {field.name for field in fields(AgentSettings)} - set(NOT_SET) | own <= words("operators.md")


def test_every_dependency_is_explained() -> None:
    assert dependencies() | system_packages() <= words("dependencies.md")


@pytest.mark.parametrize(("domain", "contract", "prefix"), STATES, ids=lambda value: getattr(value, "__name__", ""))
def test_states_of_the_code_are_those_of_the_contract(
    domain: type[StrEnum], contract: EnumDescriptor, prefix: str
) -> None:
    assert {f"{prefix}{member.value}" for member in domain} == set(contract.values_by_name) - {f"{prefix}UNSPECIFIED"}


@pytest.mark.parametrize("domain", [domain for domain, _, _ in STATES], ids=lambda value: value.__name__)
def test_every_state_is_explained(domain: type[StrEnum]) -> None:
    assert {member.value for member in domain} <= words("states.md")


def test_every_reason_of_a_state_is_explained() -> None:
    given = {reason: path.name for path in sources() for reason in reasons_in(ast.parse(path.read_text()))}
    assert "BuildFailed" in given
    assert "PortInUse" in given
    explained = words("states.md")
    assert {reason: file for reason, file in given.items() if reason not in explained} == {}


def test_every_fail_point_is_reached_and_tested() -> None:
    agents = [path for folder in ("edge_agent", "baremetal_agent") for path in (ROOT / folder).rglob("*.py")]
    agent = "\n".join(path.read_text() for path in agents)
    reached = set(re.findall(r'reach\("([a-z.]+)"\)', agent))
    steps = {step.__name__.lower() for step in Step.__subclasses__()}
    reached |= {f"{step}.{moment}" for step in steps for moment in ("begin", "done")}
    assert reached == set(POINTS)
    assert {point.partition(":")[0] for _, point in CASES} == set(POINTS)


def test_every_part_of_an_agents_work_has_fail_points_of_each_backend() -> None:
    """Those of its own, in its own folder: what only one backend reaches says nothing of the other."""
    for folder in ("edge_agent/podman", "baremetal_agent"):
        source = "\n".join(path.read_text() for path in (ROOT / folder).rglob("*.py"))
        reached = {point.partition(".")[0] for point in re.findall(r'reach\("([a-z.]+)"\)', source)}
        assert reached == {"fetch", "start", "remove"}
