"""Deployments, workloads and instances as the controller keeps them. Plain data; times in seconds since the epoch."""

from dataclasses import dataclass
from enum import StrEnum

from controller.builds.model import BuiltArtifact
from controller.events.model import Project
from controller.volumes.model import PinnedVolume

# Reason of what a target is short of, in place of a device's.
NOT_ENOUGH = "NotEnoughDevices"


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
class LeftOut:
    """A device that a target of the spec picks and that cannot run the workload: reason, and a sentence about it. With
    NOT_ENOUGH it is a target in place of a device: fewer devices than it asks for can run the workload."""

    device_name: str
    reason: str
    message: str


@dataclass(frozen=True)
class Deployment:
    """A deployment at its present revision. `spec` is the deployment.yml as it came. `left_out`: as of the last look
    at which device should run it."""

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
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Revision:
    """One accepted change of a deployment. `author` is the name of an API token; `undo_of` the earlier revision that
    this one is equal to, or 0."""

    deployment_id: str
    revision: int
    build_id: str
    spec: bytes
    created: float
    author: str
    undo_of: int


@dataclass(frozen=True)
class WorkloadRow:
    """What one device should run of a deployment. `workload_spec` is a serialized `longshore.v1.WorkloadSpec`."""

    deployment_id: str
    device_id: str
    revision: int
    wish: Wish
    artifact: BuiltArtifact
    workload_spec: bytes
    volumes: tuple[PinnedVolume, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """What an instance used when its device measured it last. `metrics` is a serialized `longshore.v1.InstanceMetrics`;
    `cpu_millis_per_second` is -1 where it is not known yet."""

    deployment_id: str
    device_id: str
    revision: int
    measured: float
    cpu_millis_per_second: int
    metrics: bytes


@dataclass(frozen=True)
class InstanceRow:
    """What a device said last of a deployment. `status` is a serialized `longshore.v1.InstanceStatus`.

    `artifact_digest` is "" of a wish that the device cannot read."""

    deployment_id: str
    device_id: str
    revision: int
    state: str
    ready: bool
    reason: str
    message: str
    attempts: int
    artifact_digest: str
    status: bytes
    since: float = 0.0
