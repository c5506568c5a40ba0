"""The desired state of a device as the message that it fetches: a whole document."""

from controller.deployments.model import Deployment, Wish, WorkloadRow
from controller.devices.model import Device
from controller.store import Transaction
from longshore.v1 import agent_pb2, types_pb2


def desired_state(tx: Transaction, device: Device) -> agent_pb2.DesiredState:
    """What the device should run, stop and keep; what is to be deleted is left out."""
    desired = agent_pb2.DesiredState(device_id=device.id, generation=device.generation)
    for row in tx.workloads.of_device(device.id):
        deployment = tx.deployments.get(row.deployment_id)
        if deployment is not None and row.wish is not Wish.DELETE:
            desired.workloads.append(_workload(deployment, row))
    return desired


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
