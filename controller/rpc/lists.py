"""Filters of lists as requests give them, and a deployment as lists and all other answers tell it."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from controller.builds.model import BuildState
from controller.deployments.condition import ready
from controller.deployments.filters import DeploymentFilter, InstanceFilter, TimeRange
from controller.deployments.model import DeploymentState, Wish
from controller.errors import InvalidRequest
from controller.events.model import Project
from controller.rpc.convert import PROJECT_NAME, names_from, project_from, project_to, timestamp
from controller.store.listing import DeploymentView
from controller.store.workloads import Placement
from longshore.v1 import deployment_pb2, types_pb2

MOST_ENDPOINTS = 20
# As many as the contract can tell; what devices say is not checked.
MOST_RESTARTS = 2**31 - 1
TROUBLED = (DeploymentState.FAILED, DeploymentState.DEGRADED)

Request = deployment_pb2.ListDeploymentsRequest | deployment_pb2.ListInstancesRequest


def deployment_filter(request: deployment_pb2.ListDeploymentsRequest, seen_by: str) -> DeploymentFilter:
    """Raises InvalidRequest."""
    states = names_from("states", deployment_pb2.DeploymentState, "DEPLOYMENT_STATE_", request.states)
    return DeploymentFilter(
        project=_project(request), user_id=_user(request), seen_by=seen_by, profile=request.profile,
        labels=dict(request.labels), states=states, since=_range("since", request.since),
        include_deleted=request.include_deleted, device=request.device, created=_range("created", request.created),
    )  # fmt: skip


def instance_filter(request: deployment_pb2.ListInstancesRequest, seen_by: str) -> InstanceFilter:
    """Raises InvalidRequest."""
    states = names_from("states", types_pb2.InstanceState, "INSTANCE_STATE_", request.states)
    return InstanceFilter(
        project=_project(request), user_id=_user(request), seen_by=seen_by, profile=request.profile,
        labels=dict(request.labels), states=states, since=_range("since", request.since),
        deployment_id=request.deployment_id, device=request.device_id,
    )  # fmt: skip


def deployment_to(view: DeploymentView) -> deployment_pb2.Deployment:
    deployment = view.deployment
    wanted = [place for place in view.placements if place.workload.wish is Wish.RUN]
    answering = [place for place in wanted if ready(deployment, place)]
    told = {place.workload.device_id: _status(place) for place in view.placements}
    digests = dict.fromkeys(target.artifact.digest for target in view.targets if target.artifact is not None)
    return deployment_pb2.Deployment(
        id=deployment.id,
        project=project_to(deployment.project),
        name=deployment.name,
        revision=deployment.revision,
        state=deployment_pb2.DeploymentState.Value(f"DEPLOYMENT_STATE_{deployment.condition.state}"),
        reason=deployment.condition.reason,
        message=deployment.condition.message,
        since=timestamp(deployment.since),
        build_id=deployment.build_id,
        created=timestamp(deployment.created),
        updated=timestamp(deployment.updated),
        spec=deployment.spec,
        instances_wanted=len(wanted),
        instances_ready=len(answering),
        artifact_digests=digests,
        endpoints=_endpoints(answering, told),
        restarts=min(MOST_RESTARTS, sum(max(0, status.restarts) for status in told.values())),
        last_lines=_last_lines(view, told.values()) if deployment.condition.state in TROUBLED else (),
    )


def _status(place: Placement) -> types_pb2.InstanceStatus:
    return types_pb2.InstanceStatus.FromString(place.instance.status if place.instance is not None else b"")


def _endpoints(
    answering: list[Placement], told: dict[str, types_pb2.InstanceStatus]
) -> list[deployment_pb2.InstanceEndpoint]:
    found = [
        deployment_pb2.InstanceEndpoint(
            device_id=place.workload.device_id, device_name=place.device_name, endpoint=endpoint
        )
        for place in answering[:MOST_ENDPOINTS]
        for endpoint in told[place.workload.device_id].endpoints
    ]
    return found[:MOST_ENDPOINTS]


def _last_lines(view: DeploymentView, told: Iterable[types_pb2.InstanceStatus]) -> list[str]:
    """Of the build where that is what failed, else of the first instance that has left some."""
    failed = [target for target in view.targets if target.state is BuildState.FAILED]
    if failed:
        return list(failed[0].last_lines)
    return next((list(status.last_lines) for status in told if status.last_lines), [])


def _project(request: Request) -> Project | None:
    return project_from(request.project) if request.HasField("project") else None


def _user(request: Request) -> str:
    if request.user_id and not PROJECT_NAME.fullmatch(request.user_id):
        raise InvalidRequest("user_id", f"{request.user_id[:100]!r} does not match {PROJECT_NAME.pattern}")
    return request.user_id


def _range(field: str, limits: deployment_pb2.TimeRange) -> TimeRange:
    begin = _seconds(f"{field}.begin", limits.begin) if limits.HasField("begin") else 0.0
    end = _seconds(f"{field}.end", limits.end) if limits.HasField("end") else 0.0
    if end and begin >= end:
        raise InvalidRequest(f"{field}.end", "it has to be later than begin")
    return TimeRange(begin, end)


def _seconds(field: str, moment: Timestamp) -> float:
    try:
        return moment.ToMicroseconds() / 1e6
    except ValueError:
        raise InvalidRequest(field, "out of every calendar") from None
