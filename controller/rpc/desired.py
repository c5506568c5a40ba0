"""The desired state of a device as the message that it fetches: a whole document, the only one with plain secrets."""

import structlog

from controller.deployments.model import Deployment, Wish, WorkloadRow
from controller.devices.model import Device
from controller.sealing import SecretBox, Unreadable
from controller.store import Transaction
from longshore.v1 import agent_pb2, types_pb2

log = structlog.get_logger()
UNREADABLE = (
    "the values of deploy.secrets cannot be read, since the controller's key (secrets.key) is another one; deploy it "
    "again with all of them"
)


def desired_state(tx: Transaction, device: Device, box: SecretBox) -> agent_pb2.DesiredState:
    """What the device should run, stop and keep; what is to be deleted is left out."""
    desired = agent_pb2.DesiredState(device_id=device.id, generation=device.generation)
    for row in tx.workloads.of_device(device.id):
        deployment = tx.deployments.get(row.deployment_id)
        if deployment is not None and row.wish is not Wish.DELETE:
            wished = _workload(deployment, row)
            if not _left_behind(deployment, row):
                _fill_in_secrets(tx, wished, box)
            desired.workloads.append(wished)
    return desired


def _left_behind(deployment: Deployment, row: WorkloadRow) -> bool:
    """A drained device has stopped, or is to stop, a revision that took its secrets with it: it is never started."""
    return row.wish is Wish.STOP and row.revision < deployment.revision


def _workload(deployment: Deployment, row: WorkloadRow) -> agent_pb2.DesiredWorkload:
    artifact = types_pb2.Artifact(
        kind=types_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{row.artifact.kind.name}"),
        repository=row.artifact.repository,
        digest=row.artifact.digest,
        platform=row.artifact.platform,
        size_bytes=row.artifact.size_bytes,
    )
    workload = types_pb2.Workload(
        deployment_id=deployment.id,
        project=types_pb2.Project(user_id=deployment.project.user_id, project_id=deployment.project.project_id),
        name=deployment.name,
        revision=row.revision,
        artifact=artifact,
        spec=types_pb2.WorkloadSpec.FromString(row.workload_spec),
    )
    return agent_pb2.DesiredWorkload(workload=workload, stopped=row.wish is Wish.STOP)


def _fill_in_secrets(tx: Transaction, wished: agent_pb2.DesiredWorkload, box: SecretBox) -> None:
    """Afterwards each secret has its content. Where one cannot be had the device is told to leave the workload as it
    is: an instance with an empty file would run, and nobody would know why it fails."""
    workload = wished.workload
    if not workload.spec.secrets:
        return
    try:
        values = box.open(tx.deployments.secrets(workload.deployment_id, workload.revision))
        for secret in workload.spec.secrets:
            secret.content = values[secret.name]
    except (Unreadable, KeyError) as error:
        bound = log.bind(deployment=workload.deployment_id, revision=workload.revision)
        bound.error("secrets_unreadable", error=repr(error))
        wished.problem = UNREADABLE
        for secret in workload.spec.secrets:
            secret.ClearField("content")
        # An agent that does not know of problems takes it for broken too, without it.
        workload.ClearField("artifact")
