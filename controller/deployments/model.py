"""Deployments, workloads and instances as the controller keeps them. Plain data; times in seconds since the epoch."""

from dataclasses import dataclass
from enum import StrEnum

from controller.builds.model import BuiltArtifact
from controller.events.model import Project


class DeploymentState(StrEnum):
    """Names as in `longshore.v1.DeploymentState`, without prefix."""

    BUILDING = "BUILDING"
    PENDING = "PENDING"
    PROGRESSING = "PROGRESSING"
    READY = "READY"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    DELETING = "DELETING"
    DELETED = "DELETED"


class Wish(StrEnum):
    """What the user wants of a deployment."""

    RUN = "RUN"
    STOP = "STOP"
    DELETE = "DELETE"


@dataclass(frozen=True)
class Condition:
    """A state and why."""

    state: DeploymentState
    reason: str
    message: str


@dataclass(frozen=True)
class Deployment:
    """A deployment at its present revision. `spec` is the deployment.yml as it came."""

    id: str
    project: Project
    name: str
    revision: int
    wish: Wish
    condition: Condition
    since: float
    build_id: str
    created: float
    updated: float
    spec: bytes


@dataclass(frozen=True)
class WorkloadRow:
    """What one device should run of a deployment. `workload_spec` is a serialized `longshore.v1.WorkloadSpec`."""

    deployment_id: str
    device_id: str
    revision: int
    wish: Wish
    artifact: BuiltArtifact
    workload_spec: bytes


@dataclass(frozen=True)
class InstanceRow:
    """What a device said last of a deployment. `status` is a serialized `longshore.v1.InstanceStatus`."""

    deployment_id: str
    device_id: str
    revision: int
    state: str
    ready: bool
    reason: str
    message: str
    attempts: int
    status: bytes
