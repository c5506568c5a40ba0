"""From a Spec to what agents are told: the wire's WorkloadSpec, with every default filled in."""

import json
import math
from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from controller.spec.deploy_model import CheckSpec, DeploySpec, InferenceCheck, PortSpec, ResourcesSpec
from controller.spec.launching import launch_words
from controller.spec.model import Spec
from controller.spec.runtimes import thread_variables
from controller.volumes.model import PinnedVolume
from longshore.v1 import types_pb2

_UPDATE = {
    "auto": types_pb2.UPDATE_STRATEGY_AUTO,
    "start-first": types_pb2.UPDATE_STRATEGY_START_FIRST,
    "stop-first": types_pb2.UPDATE_STRATEGY_STOP_FIRST,
}
_RESTART = {
    "always": types_pb2.RESTART_POLICY_ALWAYS,
    "on-failure": types_pb2.RESTART_POLICY_ON_FAILURE,
    "never": types_pb2.RESTART_POLICY_NEVER,
}


def workload_spec(
    spec: Spec, devices: Sequence[str] = (), pinned: Sequence[PinnedVolume] = ()
) -> types_pb2.WorkloadSpec:
    """How the spec's workload runs on each device of a kind, with these of its devices (CDI names). `pinned`: the
    version of each of its project volumes.

    Of the environment it has that of `deploy` and the variables that carry the number of cores, where the spec says
    how many; that of `build` lies in the image, as does the working directory. Secrets are without their contents.
    """
    deploy = spec.deploy
    return types_pb2.WorkloadSpec(
        entrypoint=launch_words(deploy.pre_exec, deploy.entrypoint),
        environment={**core_counts(spec), **deploy.environment},
        ports=[_port(port) for port in deploy.network.ports],
        mounts=[types_pb2.Mount(source=m.src, target=m.dst, read_only=m.read_only) for m in deploy.mounts],
        resources=_resources(deploy.resources),
        readiness=_check(readiness(deploy)),
        liveness=_check(deploy.checks.liveness) if deploy.checks.liveness else None,
        restart=_RESTART[deploy.restart],
        stop_grace=_duration(deploy.stop_grace),
        devices=devices,
        volumes=[
            types_pb2.Volume(name=v.name, target=v.dst, read_only=v.read_only)
            for v in deploy.volumes
            if v.project_volume is None
        ],
        project_volumes=_project_volumes(deploy, pinned),
        secrets=[types_pb2.SecretFile(name=secret.name, target=secret.place) for secret in deploy.secrets],
        update=_UPDATE[deploy.update],
        allow=_allowed(spec),
    )


def _project_volumes(deploy: DeploySpec, pinned: Sequence[PinnedVolume]) -> list[types_pb2.ProjectVolume]:
    places = {volume.name: volume.dst for volume in deploy.volumes}
    return [
        types_pb2.ProjectVolume(
            name=each.name,
            target=places[each.name],
            repository=each.repository,
            digest=each.digest,
            size_bytes=each.size_bytes,
        )
        for each in pinned
    ]


def _allowed(spec: Spec) -> list[str]:
    """An image that was built to run as root does so."""
    return sorted({*spec.deploy.allow, *(["root"] if spec.build.allow_root else [])})


def core_counts(spec: Spec) -> dict[str, str]:
    """The number of cores in each variable that carries it and that the spec does not set itself: numeric libraries
    start as many threads as the machine has cores, whatever the workload's share. Empty where no share is given."""
    cores = spec.deploy.resources.cpu or spec.build.minimum.cpu
    if cores is None:
        return {}
    names = (name for name in thread_variables(spec.build) if name not in spec.build.environment)
    return {name: str(max(1, math.ceil(cores))) for name in names}


def readiness(deploy: DeploySpec) -> CheckSpec:
    """The check of the spec, or else a TCP connection to the first port; the loader made sure of one."""
    given = deploy.checks.readiness
    return given or CheckSpec.model_validate({"tcp": {"port": deploy.network.ports[0].name}})


def _port(port: PortSpec) -> types_pb2.Port:
    host = port.container if port.host is None else 0 if port.host == "auto" else port.host
    return types_pb2.Port(name=port.name, container_port=port.container, host_port=host)


def _resources(limits: ResourcesSpec) -> types_pb2.Resources:
    """A share below a thousandth of a core counts as one, since 0 would mean no limit."""
    cpu_millis = max(1, round(limits.cpu * 1000)) if limits.cpu is not None else 0
    return types_pb2.Resources(
        cpu_millis=cpu_millis,
        memory_bytes=limits.memory or 0,
        pids=limits.pids or 0,
        shared_memory_bytes=limits.shared_memory or 0,
        cpu_set=limits.cpu_set or "",
    )


def _check(check: CheckSpec) -> types_pb2.Check:
    answer = types_pb2.Check(
        period=_duration(check.period),
        timeout=_duration(check.timeout),
        deadline=_duration(check.deadline),
        failure_threshold=check.failure_threshold,
    )
    if check.http:
        answer.http.CopyFrom(types_pb2.HttpProbe(port=check.http.port, path=check.http.path))
    elif check.tcp:
        answer.tcp.CopyFrom(types_pb2.TcpProbe(port=check.tcp.port))
    elif check.inference:
        answer.inference.CopyFrom(_inference(check.inference))
    elif check.command:
        answer.command.CopyFrom(types_pb2.CommandProbe(command=check.command.command))
    return answer


def _inference(check: InferenceCheck) -> types_pb2.InferenceProbe:
    return types_pb2.InferenceProbe(
        port=check.port,
        path=check.path,
        request=check.body,
        content_type=check.content_type,
        expect=json.dumps(check.expect),
        tolerance=check.tolerance,
        latency=_duration(check.latency) if check.latency else None,
    )


def _duration(value: timedelta) -> Duration:
    answer = Duration()
    answer.FromTimedelta(value)
    return answer
