"""Messages of the contract to the agent's own words and back, with the defaults that the contract names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from edge_agent.runtime.model import (
    DIGEST,
    Artifact,
    ArtifactKind,
    Check,
    CommandProbe,
    Desired,
    HttpProbe,
    InferenceProbe,
    Mount,
    Port,
    Probe,
    ProjectVolume,
    Resources,
    RestartPolicy,
    Secret,
    TcpProbe,
    UpdateStrategy,
    Volume,
    Workload,
)
from longshore.v1 import agent_pb2, types_pb2

T = TypeVar("T")

DEFAULT_PERIOD = 10.0
DEFAULT_TIMEOUT = 2.0
DEFAULT_DEADLINE = 120.0
DEFAULT_FAILURE_THRESHOLD = 3
DEFAULT_STOP_GRACE = 10.0

_RESTART: dict[int, RestartPolicy] = {
    types_pb2.RESTART_POLICY_UNSPECIFIED: RestartPolicy.ALWAYS,
    types_pb2.RESTART_POLICY_ALWAYS: RestartPolicy.ALWAYS,
    types_pb2.RESTART_POLICY_ON_FAILURE: RestartPolicy.ON_FAILURE,
    types_pb2.RESTART_POLICY_NEVER: RestartPolicy.NEVER,
}
_UPDATE: dict[int, UpdateStrategy] = {
    types_pb2.UPDATE_STRATEGY_UNSPECIFIED: UpdateStrategy.AUTO,
    types_pb2.UPDATE_STRATEGY_AUTO: UpdateStrategy.AUTO,
    types_pb2.UPDATE_STRATEGY_START_FIRST: UpdateStrategy.START_FIRST,
    types_pb2.UPDATE_STRATEGY_STOP_FIRST: UpdateStrategy.STOP_FIRST,
}
_UPDATE_PB = {
    UpdateStrategy.AUTO: types_pb2.UPDATE_STRATEGY_AUTO,
    UpdateStrategy.START_FIRST: types_pb2.UPDATE_STRATEGY_START_FIRST,
    UpdateStrategy.STOP_FIRST: types_pb2.UPDATE_STRATEGY_STOP_FIRST,
}
_KINDS: dict[int, ArtifactKind] = {
    types_pb2.ARTIFACT_KIND_UNSPECIFIED: ArtifactKind.IMAGE,
    types_pb2.ARTIFACT_KIND_IMAGE: ArtifactKind.IMAGE,
    types_pb2.ARTIFACT_KIND_BUNDLE: ArtifactKind.BUNDLE,
}
_KINDS_PB = {
    ArtifactKind.IMAGE: types_pb2.ARTIFACT_KIND_IMAGE,
    ArtifactKind.BUNDLE: types_pb2.ARTIFACT_KIND_BUNDLE,
}
_RESTART_PB = {
    RestartPolicy.ALWAYS: types_pb2.RESTART_POLICY_ALWAYS,
    RestartPolicy.ON_FAILURE: types_pb2.RESTART_POLICY_ON_FAILURE,
    RestartPolicy.NEVER: types_pb2.RESTART_POLICY_NEVER,
}


@dataclass(frozen=True)
class Broken:
    """A workload of the desired state that makes no sense, or that the controller cannot tell: it is set aside, and
    what runs of it is left alone."""

    deployment_id: str
    revision: int
    problem: str


def desired_from_pb(message: agent_pb2.DesiredState) -> tuple[Desired, tuple[Broken, ...]]:
    """The wish, and the workloads of it that are set aside. A second entry of one deployment is set aside too."""
    workloads: dict[str, Workload] = {}
    stopped: set[str] = set()
    broken: list[Broken] = []
    for entry in message.workloads:
        workload = entry.workload
        try:
            if workload.deployment_id in workloads:
                raise ValueError("the deployment is wished for twice")
            if entry.problem:
                raise ValueError(entry.problem)
            workloads[workload.deployment_id] = workload_from_pb(workload)
        except ValueError as error:
            broken.append(Broken(workload.deployment_id, workload.revision, str(error)))
            continue
        if entry.stopped:
            stopped.add(workload.deployment_id)
    return Desired(message.generation, tuple(workloads.values()), frozenset(stopped)), tuple(broken)


def workload_from_pb(message: types_pb2.Workload) -> Workload:
    """Raises ValueError with a sentence where the message makes no sense."""
    if not message.deployment_id:
        raise ValueError("the workload has no deployment_id")
    if not message.artifact.repository or not message.artifact.digest:
        raise ValueError("the artifact has no repository or no digest")
    spec = message.spec
    ports = tuple(Port(port.name, port.container_port, port.host_port) for port in spec.ports)
    names = {port.name for port in ports}
    return Workload(
        deployment_id=message.deployment_id,
        revision=message.revision,
        name=message.name,
        user_id=message.project.user_id,
        project_id=message.project.project_id,
        artifact=_artifact(message.artifact),
        readiness=_check("readiness", spec.readiness, names),
        entrypoint=tuple(spec.entrypoint),
        environment=tuple(sorted(spec.environment.items())),
        working_dir=spec.working_dir,
        ports=ports,
        mounts=tuple(Mount(mount.source, mount.target, mount.read_only) for mount in spec.mounts),
        resources=_resources(spec.resources),
        restart=_known("restart policy", _RESTART, spec.restart),
        stop_grace=_grace(spec),
        devices=tuple(spec.devices),
        volumes=tuple(Volume(volume.name, volume.target, volume.read_only) for volume in spec.volumes),
        secrets=tuple(Secret(secret.name, secret.target, secret.content) for secret in spec.secrets),
        liveness=_check("liveness", spec.liveness, names) if spec.HasField("liveness") else None,
        update=_known("update strategy", _UPDATE, spec.update),
        allow=frozenset(spec.allow),
        project_volumes=tuple(_project_volume(volume) for volume in spec.project_volumes),
    )


def workload_to_pb(workload: Workload) -> types_pb2.Workload:
    """The inverse of `workload_from_pb`."""
    spec = types_pb2.WorkloadSpec(
        entrypoint=workload.entrypoint,
        environment=dict(workload.environment),
        working_dir=workload.working_dir,
        ports=[
            types_pb2.Port(name=p.name, container_port=p.container_port, host_port=p.host_port) for p in workload.ports
        ],
        mounts=[types_pb2.Mount(source=m.source, target=m.target, read_only=m.read_only) for m in workload.mounts],
        resources=types_pb2.Resources(
            cpu_millis=workload.resources.cpu_millis,
            memory_bytes=workload.resources.memory_bytes,
            pids=workload.resources.pids,
            shared_memory_bytes=workload.resources.shared_memory_bytes,
            cpu_set=workload.resources.cpu_set,
        ),
        readiness=_check_to_pb(workload.readiness),
        restart=_RESTART_PB[workload.restart],
        stop_grace=duration(workload.stop_grace),
        devices=workload.devices,
        volumes=[types_pb2.Volume(name=v.name, target=v.target, read_only=v.read_only) for v in workload.volumes],
        secrets=[types_pb2.SecretFile(name=s.name, target=s.target, content=s.content) for s in workload.secrets],
        liveness=_check_to_pb(workload.liveness) if workload.liveness else None,
        update=_UPDATE_PB[workload.update],
        allow=sorted(workload.allow),
        project_volumes=[_project_volume_to_pb(volume) for volume in workload.project_volumes],
    )
    return types_pb2.Workload(
        deployment_id=workload.deployment_id,
        project=types_pb2.Project(user_id=workload.user_id, project_id=workload.project_id),
        name=workload.name,
        revision=workload.revision,
        artifact=types_pb2.Artifact(
            kind=_KINDS_PB[workload.artifact.kind],
            repository=workload.artifact.repository,
            digest=workload.artifact.digest,
            platform=workload.artifact.platform,
        ),
        spec=spec,
    )


def timestamp(wall: float) -> Timestamp:
    """Seconds since the epoch as a Timestamp, to the microsecond."""
    seconds, micros = divmod(round(wall * 1_000_000), 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def duration(seconds: float) -> Duration:
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=micros * 1000)


def _seconds(message: Duration, default: float) -> float:
    seconds = message.seconds + message.nanos / 1e9
    if seconds < 0:
        raise ValueError(f"a time of {seconds:g} s is negative")
    return seconds or default


def _grace(spec: types_pb2.WorkloadSpec) -> float:
    # Absent means the default, zero means at once.
    return _seconds(spec.stop_grace, 0.0) if spec.HasField("stop_grace") else DEFAULT_STOP_GRACE


def _known(what: str, table: Mapping[int, T], value: int) -> T:
    if value not in table:
        raise ValueError(f"{what} {value} is not known to this agent")
    return table[value]


def _artifact(message: types_pb2.Artifact) -> Artifact:
    kind = _known("artifact kind", _KINDS, message.kind)
    return Artifact(message.repository, message.digest, message.platform, kind)


def _project_volume(message: types_pb2.ProjectVolume) -> ProjectVolume:
    if not DIGEST.fullmatch(message.digest) or not message.repository or not message.target.startswith("/"):
        raise ValueError(f"the project volume {message.name!r} has no digest, no repository or no absolute path")
    return ProjectVolume(message.name, message.target, message.repository, message.digest, message.size_bytes)


def _project_volume_to_pb(volume: ProjectVolume) -> types_pb2.ProjectVolume:
    return types_pb2.ProjectVolume(
        name=volume.name,
        target=volume.target,
        repository=volume.repository,
        digest=volume.digest,
        size_bytes=volume.size,
    )


def _resources(message: types_pb2.Resources) -> Resources:
    return Resources(
        message.cpu_millis, message.memory_bytes, message.pids, message.shared_memory_bytes, message.cpu_set
    )


def _check(what: str, message: types_pb2.Check, ports: set[str]) -> Check:
    return Check(
        probe=_probe(what, message, ports),
        period=_seconds(message.period, DEFAULT_PERIOD),
        timeout=_seconds(message.timeout, DEFAULT_TIMEOUT),
        deadline=_seconds(message.deadline, DEFAULT_DEADLINE),
        failure_threshold=message.failure_threshold or DEFAULT_FAILURE_THRESHOLD,
    )


def _probe(what: str, message: types_pb2.Check, ports: set[str]) -> Probe:
    kind = message.WhichOneof("probe")
    if kind == "command":
        if not message.command.command:
            raise ValueError(f"the {what} check has an empty command")
        return CommandProbe(tuple(message.command.command))
    if kind is None:
        raise ValueError(f"the workload has no {what} check that is known to this agent")
    probe = _inference(message.inference) if kind == "inference" else _simple(message)
    if probe.port not in ports:
        raise ValueError(f"the {what} check asks port {probe.port!r}, which the workload does not have")
    return probe


def _simple(message: types_pb2.Check) -> HttpProbe | TcpProbe:
    if message.HasField("http"):
        return HttpProbe(message.http.port, message.http.path or "/")
    return TcpProbe(message.tcp.port)


def _inference(message: types_pb2.InferenceProbe) -> InferenceProbe:
    return InferenceProbe(
        port=message.port,
        path=message.path or "/",
        request=message.request,
        content_type=message.content_type or "application/json",
        expect=message.expect or "{}",
        tolerance=message.tolerance,
        latency=_seconds(message.latency, 0.0),
    )


def _check_to_pb(check: Check) -> types_pb2.Check:
    message = types_pb2.Check(
        period=duration(check.period),
        timeout=duration(check.timeout),
        deadline=duration(check.deadline),
        failure_threshold=check.failure_threshold,
    )
    if isinstance(check.probe, HttpProbe):
        message.http.port, message.http.path = check.probe.port, check.probe.path
    elif isinstance(check.probe, TcpProbe):
        message.tcp.port = check.probe.port
    elif isinstance(check.probe, InferenceProbe):
        message.inference.CopyFrom(_inference_to_pb(check.probe))
    else:
        message.command.command.extend(check.probe.command)
    return message


def _inference_to_pb(probe: InferenceProbe) -> types_pb2.InferenceProbe:
    return types_pb2.InferenceProbe(
        port=probe.port,
        path=probe.path,
        request=probe.request,
        content_type=probe.content_type,
        expect=probe.expect,
        tolerance=probe.tolerance,
        latency=duration(probe.latency),
    )
