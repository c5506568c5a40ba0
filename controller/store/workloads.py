"""Workloads (what each device should run) and instances (what it says that it runs)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, insert, select, update

from controller.deployments.model import InstanceRow, Measurement, Wish, WorkloadRow
from controller.events.model import Project
from controller.store import schema
from controller.store.rows import artifact_from_json, artifact_to_json, volumes_from_json, volumes_to_json

WORKLOADS = schema.workloads
INSTANCES = schema.instances
MEASUREMENTS = schema.measurements
DEPLOYMENTS = schema.deployments
DEVICES = schema.devices


@dataclass(frozen=True)
class Placement:
    """A workload with the names that people know, what its device said of it, and what that measured (None: nothing
    yet). `wished`: since when it is to have this revision."""

    workload: WorkloadRow
    project: Project
    deployment_name: str
    device_name: str
    presence: str
    last_seen: float
    observed: bool
    instance: InstanceRow | None
    measurement: Measurement | None = None
    wished: float = 0.0


class WorkloadTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, workload: WorkloadRow) -> None:
        """Makes or replaces the workload of this deployment on this device."""
        self.remove(workload.deployment_id, workload.device_id)
        values = {
            **vars(workload), "wish": workload.wish.value, "artifact": artifact_to_json(workload.artifact),
            "volumes": volumes_to_json(workload.volumes), "since": time.time(),
        }  # fmt: skip
        self._connection.execute(insert(WORKLOADS).values(**values))

    def wish(self, deployment_id: str, device_id: str, wish: Wish) -> None:
        """Changes only what is wished of it."""
        of_workload = _pair(WORKLOADS, deployment_id, device_id)
        self._connection.execute(update(WORKLOADS).where(*of_workload).values(wish=wish.value))

    def remove(self, deployment_id: str, device_id: str) -> None:
        for table in (WORKLOADS, MEASUREMENTS):
            self._connection.execute(delete(table).where(*_pair(table, deployment_id, device_id)))

    def put_measurement(self, measurement: Measurement) -> None:
        """What the device measured last of a workload, with which it goes."""
        pair = _pair(MEASUREMENTS, measurement.deployment_id, measurement.device_id)
        self._connection.execute(delete(MEASUREMENTS).where(*pair))
        self._connection.execute(insert(MEASUREMENTS).values(**vars(measurement)))

    def measurements_of_device(self, device_id: str) -> list[Measurement]:
        query = select(MEASUREMENTS).where(MEASUREMENTS.c.device_id == device_id)
        return [Measurement(**row) for row in self._connection.execute(query).mappings()]

    def of_deployment(self, deployment_id: str) -> list[WorkloadRow]:
        return self._workloads(WORKLOADS.c.deployment_id == deployment_id)

    def of_device(self, device_id: str) -> list[WorkloadRow]:
        return self._workloads(WORKLOADS.c.device_id == device_id)

    def repositories_of(self, device_id: str) -> set[str]:
        """Repositories from which the device may pull: those that its desired state names."""
        wished = self.of_device(device_id)
        artifacts = {workload.artifact.repository for workload in wished}
        return artifacts | {volume.repository for workload in wished for volume in workload.volumes}

    def put_instance(self, instance: InstanceRow) -> None:
        """What the device says now."""
        self.remove_instance(instance.deployment_id, instance.device_id)
        self._connection.execute(insert(INSTANCES).values(**vars(instance)))

    def remove_instance(self, deployment_id: str, device_id: str) -> None:
        self._connection.execute(delete(INSTANCES).where(*_pair(INSTANCES, deployment_id, device_id)))

    def remove_device(self, device_id: str) -> None:
        """Nothing is wished of the device, nor known."""
        for table in (WORKLOADS, INSTANCES, MEASUREMENTS):
            self._connection.execute(delete(table).where(table.c.device_id == device_id))

    def instances_of_device(self, device_id: str) -> list[InstanceRow]:
        query = select(INSTANCES).where(INSTANCES.c.device_id == device_id)
        return [InstanceRow(**row) for row in self._connection.execute(query).mappings()]

    def placements(self, deployment_id: str = "", device_id: str = "") -> list[Placement]:
        """The workloads of a deployment, or of a device, with what is known of them."""
        wanted = ((WORKLOADS.c.deployment_id, deployment_id), (WORKLOADS.c.device_id, device_id))
        return self.selected([column == value for column, value in wanted if value])

    def selected(self, conditions: Sequence[Any], limit: int | None = None) -> list[Placement]:
        """Workloads with what is known of them, ordered by deployment and device, for which these conditions over the
        tables hold; all of them unless `limit` says otherwise."""
        joined = WORKLOADS.join(DEPLOYMENTS, DEPLOYMENTS.c.id == WORKLOADS.c.deployment_id)
        joined = joined.join(DEVICES, DEVICES.c.id == WORKLOADS.c.device_id)
        for table in (INSTANCES, MEASUREMENTS):
            same = and_(*(table.c[key] == WORKLOADS.c[key] for key in ("deployment_id", "device_id")))
            joined = joined.outerjoin(table, same)
        query = select(*_columns()).select_from(joined).where(*conditions)
        query = query.order_by(WORKLOADS.c.deployment_id, WORKLOADS.c.device_id).limit(limit)
        return [_placement(row) for row in self._connection.execute(query).mappings()]

    def _workloads(self, condition: Any) -> list[WorkloadRow]:
        query = select(WORKLOADS).where(condition).order_by(WORKLOADS.c.deployment_id, WORKLOADS.c.device_id)
        return [_workload(row) for row in self._connection.execute(query).mappings()]


def _pair(table: Any, deployment_id: str, device_id: str) -> tuple[Any, Any]:
    return table.c.deployment_id == deployment_id, table.c.device_id == device_id


def _columns() -> list[Any]:
    named = [
        DEPLOYMENTS.c.user_id,
        DEPLOYMENTS.c.project_id,
        DEPLOYMENTS.c.name.label("deployment_name"),
        DEVICES.c.name.label("device_name"),
        DEVICES.c.presence,
        DEVICES.c.last_seen,
        (DEVICES.c.observed_generation >= DEVICES.c.generation).label("observed"),
    ]
    told = [column.label(f"instance_{column.name}") for column in INSTANCES.c]
    measured = [column.label(f"measurement_{column.name}") for column in MEASUREMENTS.c]
    return [*WORKLOADS.c, *named, *told, *measured]


def _workload(row: RowMapping) -> WorkloadRow:
    artifact = artifact_from_json(row["artifact"])
    if artifact is None:
        raise ValueError("a workload without an artifact")
    plain = {key: row[key] for key in ("deployment_id", "device_id", "revision", "workload_spec")}
    return WorkloadRow(wish=Wish(row["wish"]), artifact=artifact, volumes=volumes_from_json(row["volumes"]), **plain)


def _placement(row: RowMapping) -> Placement:
    instance, measurement = None, None
    if row["instance_deployment_id"] is not None:
        instance = InstanceRow(**{key: row[f"instance_{key}"] for key in InstanceRow.__dataclass_fields__})
    if row["measurement_deployment_id"] is not None:
        measurement = Measurement(**{key: row[f"measurement_{key}"] for key in Measurement.__dataclass_fields__})
    return Placement(
        workload=_workload(row),
        project=Project(row["user_id"], row["project_id"]),
        instance=instance,
        measurement=measurement,
        wished=row["since"],
        **{key: row[key] for key in ("deployment_name", "device_name", "presence", "last_seen", "observed")},
    )
