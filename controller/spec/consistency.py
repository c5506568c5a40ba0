"""What no single field can tell: problems between the parts of a `deployment.yml`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from controller.spec.build_rules import build_findings, bundle_findings
from controller.spec.completing import complete_network, entrypoint_of, runtime_of
from controller.spec.deploy_model import (
    CheckSpec,
    ChecksSpec,
    DeploySpec,
    MountSpec,
    NetworkSpec,
    SecretSpec,
    VolumeSpec,
)
from controller.spec.findings import Finding
from controller.spec.launching import CannotLaunch, launch_words
from controller.spec.messages import nearest
from controller.spec.model import BuildSpec, TargetSpec
from controller.spec.pairing import Profile, pair_findings, unknown_profiles
from controller.spec.runtimes import RuntimeKind
from controller.spec.tree import Path

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Sections:
    """The parts of a file that are valid by themselves; None where one is not.

    Of `build` what is valid by itself; `unread` names its other keys. Targets by their place in the list.
    """

    build: BuildSpec
    unread: frozenset[str]
    network: NetworkSpec | None
    checks: ChecksSpec | None
    deploy: DeploySpec | None
    mounts: list[MountSpec] | None
    volumes: list[VolumeSpec] | None
    secrets: list[SecretSpec] | None
    targets: Mapping[int, TargetSpec]


def sections(data: object) -> Sections:
    """The valid parts of a file, so that one wrong field does not hide what is wrong between the others."""
    top = data if isinstance(data, dict) else {}
    deploy = top.get("deploy", {})
    deploy = deploy if isinstance(deploy, dict) else {}
    build, unread = _valid_parts(BuildSpec, top.get("build", {}))
    return Sections(
        build,
        unread,
        _valid(NetworkSpec, deploy.get("network", {})),
        _valid(ChecksSpec, deploy.get("checks", {})),
        _valid(DeploySpec, top.get("deploy", {})),
        _valid_list(TypeAdapter(list[MountSpec]), deploy.get("mounts", [])),
        _valid_list(TypeAdapter(list[VolumeSpec]), deploy.get("volumes", [])),
        _valid_list(TypeAdapter(list[SecretSpec]), deploy.get("secrets", [])),
        _valid_targets(top.get("targets", [])),
    )


def findings(
    data: object, profiles: Mapping[str, Profile] | None, runtimes: Mapping[str, RuntimeKind]
) -> Iterator[Finding]:
    """Everything that is wrong between the valid parts. Without `profiles` nothing is said about them, nor about
    runtimes that are not known: the server may know more."""
    parts = sections(data)
    runtime = runtime_of(parts.build, runtimes)
    network = complete_network(parts.network, runtime) if parts.network and runtime else parts.network
    # What an unknown runtime would add is unknown too.
    guessing = bool({"runtime", "."} & parts.unread) or (parts.build.runtime is not None and runtime is None)
    if parts.network is not None:
        yield from _ports(parts.network)
    if network is not None and parts.checks is not None and not guessing:
        yield from _readiness(network, parts.checks)
    yield from build_findings(parts.build)
    yield from _model_path(parts.build, parts.deploy, runtime)
    if parts.deploy is not None and not guessing and "base" not in parts.unread:
        yield from _something_to_run(parts.build, parts.deploy, runtime)
    if parts.volumes is not None:
        yield from _model_volume(parts.build, parts.volumes)
    yield from _places(parts.mounts or [], parts.volumes or [], parts.secrets or [])
    yield from _targets(parts.targets)
    yield from bundle_findings(parts.build, parts.deploy, parts.targets)
    if profiles is not None:
        yield from unknown_profiles(data, profiles)
        yield from pair_findings(parts.build, parts.targets, profiles, runtimes)


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
    if checks.readiness is None and not network.ports:
        hint = "add one (http, tcp, inference or command), or a port, to which a TCP connection is then tried"
        yield Finding(("deploy", "checks", "readiness"), f"without ports it needs a readiness check; {hint}")
    for which, check in (("readiness", checks.readiness), ("liveness", checks.liveness)):
        if check is not None:
            yield from _known_port(which, check, [port.name for port in network.ports])


def _known_port(which: str, check: CheckSpec, names: list[str]) -> Iterator[Finding]:
    for kind, probe in (("http", check.http), ("tcp", check.tcp), ("inference", check.inference)):
        if probe is not None and probe.port not in names:
            known = f"known: {', '.join(names)}" if names else "deploy.network.ports has none"
            path: Path = ("deploy", "checks", which, kind, "port")
            yield Finding(path, f"no port is named '{probe.port}'{nearest(probe.port, names)}; {known}")


def _model_path(build: BuildSpec, deploy: DeploySpec | None, runtime: RuntimeKind | None) -> Iterator[Finding]:
    """A runtime that serves models needs one; and what the runtime starts has the ending that it knows."""
    if runtime is None or build.runtime is None or (deploy and deploy.entrypoint and not runtime.serves_models):
        return
    path: Path = ("build", "runtime", "path")
    given = build.runtime.path
    endings = " or ".join(runtime.suffixes)
    if given is None and runtime.serves_models:
        yield Finding(
            path, f"required: the model that {runtime.name} serves, such as model/digits{runtime.suffixes[0]}"
        )
    if given is not None and runtime.suffixes and not given.lower().endswith(runtime.suffixes):
        yield Finding(
            path, f"'{given[:200]}' is not allowed for {runtime.name}; expected a file that ends in {endings}"
        )


def _model_volume(build: BuildSpec, volumes: list[VolumeSpec]) -> Iterator[Finding]:
    """An absolute path is one in a project volume: nothing else is there before the image is."""
    path = build.runtime.path if build.runtime else None
    if path is None or not path.startswith("/"):
        return
    given = [volume.dst.rstrip("/") for volume in volumes if volume.project_volume is not None]
    if not any(path.startswith(f"{dst}/") for dst in given):
        known = f"those lie at: {', '.join(given)}" if given else "deploy.volumes has none"
        message = f"'{path[:200]}' is in no project volume; {known}; or give a path beside the deployment.yml"
        yield Finding(("build", "runtime", "path"), message)


def _something_to_run(build: BuildSpec, deploy: DeploySpec, runtime: RuntimeKind | None) -> Iterator[Finding]:
    if runtime is not None and runtime.serves_models:
        # Without a model it has been said already that one is required.
        return
    entrypoint = deploy.entrypoint or (entrypoint_of(runtime, "", build, []) if runtime else [])
    if build.base is None and not entrypoint:
        hint = "or name the program as build.runtime.path" if runtime else "such as [python, server.py]"
        message = f"required, unless build.base names an image that has a command of its own; {hint}"
        yield Finding(("deploy", "entrypoint"), message)
    try:
        launch_words(deploy.pre_exec, entrypoint or ["unknown"] * (build.base is None))
    except CannotLaunch as error:
        yield Finding(("deploy", "pre_exec"), str(error))


def _places(mounts: list[MountSpec], volumes: list[VolumeSpec], secrets: list[SecretSpec]) -> Iterator[Finding]:
    where: list[Path] = [("deploy", "mounts", index, "dst") for index in range(len(mounts))]
    where += [("deploy", "volumes", index, "dst") for index in range(len(volumes))]
    where += [("deploy", "secrets", index, *(["dst"] if secret.dst else [])) for index, secret in enumerate(secrets)]
    given = [*(mount.dst for mount in mounts), *(volume.dst for volume in volumes), *(each.place for each in secrets)]
    targets = [dst.rstrip("/") or "/" for dst in given]
    message = "two mounts, volumes or secrets lie at"
    yield from _twice(targets, lambda index, dst: Finding(where[index], f"{message} {dst}"))
    yield from _names("volumes", [volume.name for volume in volumes])
    yield from _names("secrets", [secret.name for secret in secrets])


def _names(part: str, names: list[str]) -> Iterator[Finding]:
    yield from _twice(names, lambda index, name: Finding(("deploy", part, index, "name"), f"'{name}' names two {part}"))


def _targets(targets: Mapping[int, TargetSpec]) -> Iterator[Finding]:
    seen: list[TargetSpec] = []
    for index, target in targets.items():
        if target.platform is not None:
            yield Finding(("targets", index, "platform"), "expected either profile or platform, not both")
        if target in seen:
            yield Finding(("targets", index), "the same target is given twice")
        seen.append(target)


def _valid_parts(kind: type[M], data: object) -> tuple[M, frozenset[str]]:
    """What is left of a section without the keys that are wrong, and these keys; "." where it is no section at all."""
    if not isinstance(data, dict):
        return kind(), frozenset({"."})
    if (whole := _valid(kind, data)) is not None:
        return whole, frozenset()
    unread = frozenset(key for key, value in data.items() if _valid(kind, {key: value}) is None)
    return kind.model_validate({key: value for key, value in data.items() if key not in unread}), unread


def _valid_targets(data: object) -> dict[int, TargetSpec]:
    entries = enumerate(data if isinstance(data, list) else [])
    return {index: target for index, entry in entries if (target := _valid(TargetSpec, entry)) is not None}


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
