"""Domain objects to messages of the contract, and back. No logic."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from controller.builds.logs import BuildLogLine
from controller.builds.model import Build, BuildState, BuildTarget, BuiltArtifact, ContextFile
from controller.builds.service import Positions
from controller.deployments.changes import FieldChange
from controller.deployments.history import Change
from controller.devices.model import Device, Presence
from controller.errors import InvalidRequest
from controller.events.model import Event, Project
from controller.store.images import Image
from controller.store.rows import Page
from controller.store.workloads import Placement
from longshore.v1 import build_pb2, deployment_pb2, device_pb2, event_pb2, mqtt_pb2, types_pb2

PROJECT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")

LONGEST_REQUEST_ID = 128


def timestamp(seconds: float) -> Timestamp | None:
    """None for 0: it never happened."""
    if not seconds:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def project_from(message: types_pb2.Project) -> Project:
    """Raises InvalidRequest for names outside of the contract."""
    for field in ("user_id", "project_id"):
        if not PROJECT_NAME.fullmatch(getattr(message, field)):
            shown = getattr(message, field)
            raise InvalidRequest(f"project.{field}", f"{shown!r} does not match {PROJECT_NAME.pattern}")
    return Project(message.user_id, message.project_id)


def names_from(field: str, enum: Any, prefix: str, numbers: Sequence[int]) -> tuple[str, ...]:
    """The names of these values of a filter, each once and without its prefix. Raises InvalidRequest for one that there
    is not."""
    known = {number: name.removeprefix(prefix) for name, number in enum.items() if number}
    if unknown := [number for number in numbers if number not in known]:
        raise InvalidRequest(field, f"{unknown[0]} is none of them; leave it out to see all")
    return tuple(known[number] for number in dict.fromkeys(numbers))


def request_id_from(
    message: build_pb2.CreateBuildRequest
    | deployment_pb2.ApplyDeploymentRequest
    | deployment_pb2.UndoDeploymentRequest,
) -> str:
    """Raises InvalidRequest for one that is longer than the contract allows."""
    if len(message.request_id) > LONGEST_REQUEST_ID:
        raise InvalidRequest("request_id", f"at most {LONGEST_REQUEST_ID} characters are allowed")
    return message.request_id


def project_to(project: Project) -> types_pb2.Project:
    return types_pb2.Project(user_id=project.user_id, project_id=project.project_id)


def page_from(message: types_pb2.PageRequest) -> Page:
    return Page(message.size, message.token)


def files_from(entries: list[types_pb2.FileEntry]) -> tuple[ContextFile, ...]:
    return tuple(ContextFile(e.path, e.digest, e.size_bytes, e.executable) for e in entries)


def artifact_to(artifact: BuiltArtifact) -> types_pb2.Artifact:
    kind = types_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{artifact.kind.name}")
    return types_pb2.Artifact(**{**vars(artifact), "kind": kind})


def secrets_from(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """Copied out of the message, which the call's end frees."""
    return {name: bytes(value) for name, value in secrets.items()}


def build_to(build: Build, positions: Positions) -> build_pb2.Build:
    """`positions`: where its waiting targets stand in the queue."""
    failure = build.failure or next((each for each in build.targets if each.state is BuildState.CANCELLED), None)
    return build_pb2.Build(
        id=build.id,
        project=types_pb2.Project(user_id=build.user_id, project_id=build.project_id),
        name=build.name,
        state=build_pb2.BuildState.Value(f"BUILD_STATE_{build.state}"),
        reason=failure.reason if failure else "",
        message=failure.message if failure else "",
        targets=[_target_to(target, positions.get((build.id, target.key), 0)) for target in build.targets],
        created=timestamp(build.created),
        ended=timestamp(build.ended),
        spec=build.spec,
        image_index=artifact_to(build.image_index) if build.image_index else None,
        cancel_requested=build.cancel_requested,
    )


def _target_to(target: BuildTarget, position: int) -> build_pb2.BuildTarget:
    return build_pb2.BuildTarget(
        queue_position=position if target.state is BuildState.QUEUED else 0,
        key=target.key,
        profile=target.profile,
        kind=types_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{target.kind.name}"),
        host=target.host,
        cached_from=target.cached_from,
        notes=target.notes,
        platform=target.platform,
        state=build_pb2.BuildState.Value(f"BUILD_STATE_{target.state}"),
        reason=target.reason,
        message=target.message,
        failed_step=target.failed_step,
        last_lines=target.last_lines,
        artifact=artifact_to(target.artifact) if target.artifact else None,
        started=timestamp(target.started),
        ended=timestamp(target.ended),
    )


def image_to(image: Image) -> build_pb2.BuiltImage:
    build = image.build
    return build_pb2.BuiltImage(
        project=types_pb2.Project(user_id=build.user_id, project_id=build.project_id),
        name=build.name,
        build_id=build.id,
        target=image.target,
        artifact=artifact_to(image.artifact),
        tags=image.tags,
        created=timestamp(build.created),
        in_use=image.in_use,
    )


def build_line_to(line: BuildLogLine) -> build_pb2.ReadBuildLogResponse:
    text = types_pb2.LogLine(number=line.number, time=timestamp(line.time), stream=line.stream, text=line.text)
    return build_pb2.ReadBuildLogResponse(target=line.target, line=text)


def change_to(change: FieldChange) -> deployment_pb2.FieldChange:
    return deployment_pb2.FieldChange(**vars(change))


def revision_to(change: Change) -> deployment_pb2.Revision:
    revision = change.revision
    return deployment_pb2.Revision(
        revision=revision.revision,
        created=timestamp(revision.created),
        author=revision.author,
        build_id=revision.build_id,
        spec=revision.spec,
        undo_of=revision.undo_of,
        changes=map(change_to, change.fields),
    )


def instance_to(place: Placement) -> deployment_pb2.Instance:
    status = types_pb2.InstanceStatus(
        deployment_id=place.workload.deployment_id,
        revision=place.workload.revision,
        state=types_pb2.INSTANCE_STATE_PENDING,
        reason="NotReported",
        message="the device has not said anything about it yet",
        artifact_digest=place.workload.artifact.digest,
        since=timestamp(place.wished),
    )
    if place.instance is not None:
        status = types_pb2.InstanceStatus.FromString(place.instance.status)
    return deployment_pb2.Instance(
        deployment_id=place.workload.deployment_id,
        deployment_name=place.deployment_name,
        project=project_to(place.project),
        device_id=place.workload.device_id,
        device_name=place.device_name,
        wanted_revision=place.workload.revision,
        status=status,
        device_online=place.presence == Presence.ONLINE,
        device_last_seen=timestamp(place.last_seen),
        use=_use_to(place),
        project_volumes=types_pb2.WorkloadSpec.FromString(place.workload.workload_spec).project_volumes,
    )


def _use_to(place: Placement) -> deployment_pb2.InstanceUse | None:
    """Only of what runs now: what an instance before it used says nothing."""
    measured, instance = place.measurement, place.instance
    if measured is None or instance is None or (instance.state, instance.revision) != ("RUNNING", measured.revision):
        return None
    rate = measured.cpu_millis_per_second
    return deployment_pb2.InstanceUse(
        metrics=mqtt_pb2.InstanceMetrics.FromString(measured.metrics),
        measured=timestamp(measured.measured),
        cpu_millis_per_second=rate if rate >= 0 else None,
    )


def device_to(device: Device, evidence: Mapping[str, str]) -> device_pb2.Device:
    """`evidence`: by device id, why it is still draining."""
    return device_pb2.Device(
        id=device.id,
        name=device.name,
        labels=device.labels,
        profile=device.profile,
        presence=device_pb2.DevicePresence.Value(f"DEVICE_PRESENCE_{device.presence}"),
        last_seen=timestamp(device.last_seen),
        enrolled=timestamp(device.enrolled),
        facts=device_pb2.DeviceFacts.FromString(device.facts),
        generation=device.generation,
        observed_generation=device.observed_generation,
        agent_condition=device.condition,
        scheduling=device_pb2.DeviceScheduling.Value(f"DEVICE_SCHEDULING_{device.scheduling}"),
        scheduling_message=evidence.get(device.id, ""),
        scheduling_since=timestamp(device.scheduling_since),
        scheduling_by=device.scheduling_by,
        scheduling_reason=device.scheduling_reason,
    )


def event_to(event: Event) -> event_pb2.Event:
    what = event.what
    return event_pb2.Event(
        number=event.number,
        time=timestamp(event.time),
        project=project_to(what.project),
        kind=event_pb2.EventKind.Value(f"EVENT_KIND_{what.kind}"),
        build_id=what.build_id,
        deployment_id=what.deployment_id,
        device_id=what.device_id,
        revision=what.revision,
        state=what.state,
        ready=what.ready,
        reason=what.reason,
        message=what.message,
        occurred=timestamp(what.occurred),
        artifact_digest=what.artifact_digest,
        last_lines=what.last_lines,
    )
