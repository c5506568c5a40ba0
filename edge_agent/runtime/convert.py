"""Messages of the contract to the agent's own words and back, with the defaults that the contract names."""

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from edge_agent.runtime.model import (
    Artifact,
    Check,
    CommandProbe,
    Desired,
    HttpProbe,
    Mount,
    Port,
    Resources,
    RestartPolicy,
    TcpProbe,
    Workload,
)
from longshore.v1 import agent_pb2, types_pb2

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
_RESTART_PB = {
    RestartPolicy.ALWAYS: types_pb2.RESTART_POLICY_ALWAYS,
    RestartPolicy.ON_FAILURE: types_pb2.RESTART_POLICY_ON_FAILURE,
    RestartPolicy.NEVER: types_pb2.RESTART_POLICY_NEVER,
}


@dataclass(frozen=True)
class Broken:
    """A workload of the desired state that makes no sense: it is set aside, and what runs of it is left alone."""

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
    return Workload(
        deployment_id=message.deployment_id,
        revision=message.revision,
        name=message.name,
        user_id=message.project.user_id,
        project_id=message.project.project_id,
        artifact=Artifact(message.artifact.repository, message.artifact.digest, message.artifact.platform),
        readiness=_check(spec.readiness, {port.name for port in ports}),
        entrypoint=tuple(spec.entrypoint),
        environment=tuple(sorted(spec.environment.items())),
        working_dir=spec.working_dir,
        ports=ports,
        mounts=tuple(Mount(mount.source, mount.target, mount.read_only) for mount in spec.mounts),
        resources=Resources(spec.resources.cpu_millis, spec.resources.memory_bytes, spec.resources.pids),
        restart=_restart(spec.restart),
        stop_grace=_grace(spec),
        devices=tuple(spec.devices),
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
        ),
        readiness=_check_to_pb(workload.readiness),
        restart=_RESTART_PB[workload.restart],
        stop_grace=duration(workload.stop_grace),
        devices=workload.devices,
    )
    return types_pb2.Workload(
        deployment_id=workload.deployment_id,
        project=types_pb2.Project(user_id=workload.user_id, project_id=workload.project_id),
        name=workload.name,
        revision=workload.revision,
        artifact=types_pb2.Artifact(
            kind=types_pb2.ARTIFACT_KIND_IMAGE,
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


def _restart(policy: int) -> RestartPolicy:
    if policy not in _RESTART:
        raise ValueError(f"restart policy {policy} is not known to this agent")
    return _RESTART[policy]


def _check(message: types_pb2.Check, ports: set[str]) -> Check:
    return Check(
        probe=_probe(message, ports),
        period=_seconds(message.period, DEFAULT_PERIOD),
        timeout=_seconds(message.timeout, DEFAULT_TIMEOUT),
        deadline=_seconds(message.deadline, DEFAULT_DEADLINE),
        failure_threshold=message.failure_threshold or DEFAULT_FAILURE_THRESHOLD,
    )


def _probe(message: types_pb2.Check, ports: set[str]) -> HttpProbe | TcpProbe | CommandProbe:
    kind = message.WhichOneof("probe")
    if kind == "command":
        if not message.command.command:
            raise ValueError("the readiness check has an empty command")
        return CommandProbe(tuple(message.command.command))
    if kind is None:
        raise ValueError("the workload has no readiness check that is known to this agent")
    port = message.http.port if kind == "http" else message.tcp.port
    if port not in ports:
        raise ValueError(f"the readiness check asks port {port!r}, which the workload does not have")
    return HttpProbe(port, message.http.path or "/") if kind == "http" else TcpProbe(port)


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
    else:
        message.command.command.extend(check.probe.command)
    return message
