"""What no single field can tell: problems between the parts of a `deployment.yml`."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from controller.spec.messages import nearest
from controller.spec.model import BuildSpec, CheckSpec, ChecksSpec, DeploySpec, MountSpec, NetworkSpec, TargetSpec
from controller.spec.tree import Path

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Finding:
    """A problem at a path that may not be in the file."""

    path: Path
    message: str


@dataclass(frozen=True)
class Sections:
    """The parts of a file that are valid by themselves; None where one is not."""

    build: BuildSpec | None
    network: NetworkSpec | None
    checks: ChecksSpec | None
    deploy: DeploySpec | None
    mounts: list[MountSpec] | None
    targets: list[TargetSpec] | None


def sections(data: object) -> Sections:
    """The valid parts of a file, so that one wrong field does not hide what is wrong between the others."""
    top = data if isinstance(data, dict) else {}
    deploy = top.get("deploy", {})
    deploy = deploy if isinstance(deploy, dict) else {}
    return Sections(
        _valid(BuildSpec, top.get("build", {})),
        _valid(NetworkSpec, deploy.get("network", {})),
        _valid(ChecksSpec, deploy.get("checks", {})),
        _valid(DeploySpec, top.get("deploy", {})),
        _valid_list(TypeAdapter(list[MountSpec]), deploy.get("mounts", [])),
        _valid_list(TypeAdapter(list[TargetSpec]), top.get("targets", [])),
    )


def findings(data: object, known_profiles: Collection[str] | None) -> Iterator[Finding]:
    """Everything that is wrong between the valid parts."""
    parts = sections(data)
    if parts.network is not None:
        yield from _ports(parts.network)
    if parts.network is not None and parts.checks is not None:
        yield from _readiness(parts.network, parts.checks)
    if parts.build is not None and parts.deploy is not None:
        yield from _something_to_run(parts.build, parts.deploy)
    yield from _mounts(parts.mounts or [])
    yield from _targets(parts.targets or [])
    if known_profiles is not None:
        yield from _profiles(data, known_profiles)


def _ports(network: NetworkSpec) -> Iterator[Finding]:
    where: Path = ("deploy", "network", "ports")
    names = [port.name for port in network.ports]
    yield from _twice(names, lambda index, name: Finding((*where, index, "name"), f"'{name}' names two ports"))
    hosts = [port.host if port.host is not None else port.container for port in network.ports]
    taken = [str(host) if host != "auto" else "" for host in hosts]
    for finding in _twice(taken, lambda index, host: Finding((*where, index), host)):
        yield Finding(finding.path, f"two ports want port {finding.message} of the device; set `host: auto` or another")


def _twice(values: list[str], make: Callable[[int, str], Finding]) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for index, value in enumerate(values):
        seen[value] += 1
        if value and seen[value] > 1:
            yield make(index, value)


def _readiness(network: NetworkSpec, checks: ChecksSpec) -> Iterator[Finding]:
    check = checks.readiness
    if check is None and not network.ports:
        hint = "add one (http, tcp or command), or a port, to which a TCP connection is then tried"
        yield Finding(("deploy", "checks", "readiness"), f"without ports it needs a readiness check; {hint}")
    if check is not None and (probe := _port_of(check)):
        kind, name = probe
        names = [port.name for port in network.ports]
        if name not in names:
            known = f"known: {', '.join(names)}" if names else "deploy.network.ports has none"
            path: Path = ("deploy", "checks", "readiness", kind, "port")
            yield Finding(path, f"no port is named '{name}'{nearest(name, names)}; {known}")


def _port_of(check: CheckSpec) -> tuple[str, str] | None:
    if check.http:
        return "http", check.http.port
    return ("tcp", check.tcp.port) if check.tcp else None


def _something_to_run(build: BuildSpec, deploy: DeploySpec) -> Iterator[Finding]:
    if build.base is None and not deploy.entrypoint:
        message = (
            "required, unless build.base names an image that has a command of its own; such as [python, server.py]"
        )
        yield Finding(("deploy", "entrypoint"), message)


def _mounts(mounts: list[MountSpec]) -> Iterator[Finding]:
    where: Path = ("deploy", "mounts")
    targets = [mount.dst.rstrip("/") or "/" for mount in mounts]
    yield from _twice(targets, lambda index, dst: Finding((*where, index, "dst"), f"two mounts lie at {dst}"))


def _targets(targets: list[TargetSpec]) -> Iterator[Finding]:
    for index, target in enumerate(targets):
        if target in targets[:index]:
            yield Finding(("targets", index), "the same target is given twice")


def _profiles(data: object, known: Collection[str]) -> Iterator[Finding]:
    """Looks at what is written, so that a misspelled profile gets its suggestion even where it is no name at all."""
    targets = data.get("targets") if isinstance(data, dict) else None
    for index, target in enumerate(targets if isinstance(targets, list) else []):
        name = target.get("profile") if isinstance(target, dict) else None
        if isinstance(name, str) and name not in known:
            message = f"unknown target profile '{name[:60]}'{nearest(name, known)}; known: {', '.join(sorted(known))}"
            yield Finding(("targets", index, "profile"), message)


def _valid(kind: type[M], data: object) -> M | None:
    try:
        return kind.model_validate(data)
    except ValidationError:
        return None


def _valid_list(adapter: TypeAdapter[list[M]], data: object) -> list[M] | None:
    try:
        return adapter.validate_python(data)
    except ValidationError:
        return None
