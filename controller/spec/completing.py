"""What a runtime adds to a spec that says nothing of it itself, so that a spec that names a model file is whole."""

from collections.abc import Mapping, Sequence

from controller.spec.deploy_model import DeploySpec, NetworkSpec, PortSpec
from controller.spec.model import BuildSpec, MinimumSpec, Spec
from controller.spec.runtimes import PLACEHOLDER, RuntimeKind


def complete(spec: Spec, runtimes: Mapping[str, RuntimeKind]) -> Spec:
    """The spec with the files that it names elsewhere, and with its runtime's entrypoint, ports, readiness, environment
    and minimum; what it gives itself stays. Completing twice changes nothing. Packages are not filled in: these depend
    on the target's profile."""
    build = spec.build.model_copy(update={"files": with_files(spec.build.files, spec.optional.files)})
    spec = spec.model_copy(update={"build": build})
    runtime = runtime_of(build, runtimes)
    if runtime is None:
        return spec
    build = complete_build(build, runtime)
    deploy = complete_deploy(spec.name, spec.build, spec.deploy, runtime)
    return spec.model_copy(update={"build": build, "deploy": deploy})


def runtime_of(build: BuildSpec, runtimes: Mapping[str, RuntimeKind]) -> RuntimeKind | None:
    """The runtime that the spec names; None where it names none, or one that is not known."""
    return runtimes.get(build.runtime.kind) if build.runtime else None


def complete_build(build: BuildSpec, runtime: RuntimeKind) -> BuildSpec:
    path = build.runtime.file if build.runtime else None
    return build.model_copy(
        update={
            "files": with_files(build.files, [path] if path else []),
            "environment": {**runtime.environment, **build.environment},
            "minimum": _minimum(build.minimum, runtime.minimum),
        }
    )


def complete_deploy(name: str, build: BuildSpec, deploy: DeploySpec, runtime: RuntimeKind) -> DeploySpec:
    network = complete_network(deploy.network, runtime)
    entrypoint = deploy.entrypoint or entrypoint_of(runtime, name, build, network.ports)
    checks = deploy.checks
    if checks.readiness is None and _answers(runtime, network.ports):
        checks = checks.model_copy(update={"readiness": runtime.readiness})
    return deploy.model_copy(update={"network": network, "entrypoint": entrypoint, "checks": checks})


def complete_network(network: NetworkSpec, runtime: RuntimeKind) -> NetworkSpec:
    return network if network.ports else NetworkSpec(ports=list(runtime.ports))


def entrypoint_of(runtime: RuntimeKind, name: str, build: BuildSpec, ports: Sequence[PortSpec]) -> list[str]:
    """The runtime's entrypoint for this spec; nothing where it needs a path and the spec has none."""
    path = build.runtime.path if build.runtime else None
    if path is None and any("{path}" in word for word in runtime.entrypoint):
        return []
    numbers = {port.name: str(port.container) for port in (*runtime.ports, *ports)}
    # A program that is called like an option is still a file.
    values = {"path": f"./{path}" if path and path.startswith("-") else path or "", "name": name}
    return [PLACEHOLDER.sub(lambda m: numbers[m[2]] if m[2] else values[m[1]], word) for word in runtime.entrypoint]


def with_files(files: Sequence[str], more: Sequence[str]) -> list[str]:
    """The files, and those of `more` that do not lie in one of the folders among them."""
    return [*files, *(path for path in more if not _covered(path, files))]


def _covered(path: str, files: Sequence[str]) -> bool:
    return any(entry in (".", path) or path.startswith(f"{entry}/") for entry in files)


def _answers(runtime: RuntimeKind, ports: Sequence[PortSpec]) -> bool:
    """Whether the runtime's check can be asked: its port is there."""
    if runtime.readiness is None:
        return False
    probe = runtime.readiness.http or runtime.readiness.tcp or runtime.readiness.inference
    return probe is None or probe.port in {port.name for port in ports}


def _minimum(given: MinimumSpec, runtime: MinimumSpec) -> MinimumSpec:
    return MinimumSpec(
        cpu=given.cpu if given.cpu is not None else runtime.cpu,
        memory=given.memory if given.memory is not None else runtime.memory,
        accelerators=given.accelerators or runtime.accelerators,
    )
