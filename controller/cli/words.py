"""From messages to cells: states without prefix, ages, addresses. Pure; the time is an argument."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from controller.cli.output import Sheet
from longshore.v1 import build_pb2, deployment_pb2, device_pb2, event_pb2, types_pb2

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def age(since: Timestamp, now: datetime) -> str:
    """How long ago, in the largest unit: "3m"; "-" where it never was."""
    if not since.seconds:
        return "-"
    seconds = max(0, int(now.timestamp() - since.seconds))
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{seconds // size}{unit}"


def size(count: int) -> str:
    """Bytes for people: "12.3 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def clock(time: Timestamp) -> str:
    return time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S")


def deployment_state(state: deployment_pb2.DeploymentState.ValueType) -> str:
    return deployment_pb2.DeploymentState.Name(state).removeprefix("DEPLOYMENT_STATE_")


def build_state(state: build_pb2.BuildState.ValueType) -> str:
    return build_pb2.BuildState.Name(state).removeprefix("BUILD_STATE_")


def instance_state(status: types_pb2.InstanceStatus) -> str:
    """The state, with how far it is where that can be told."""
    name = types_pb2.InstanceState.Name(status.state).removeprefix("INSTANCE_STATE_")
    if status.state == types_pb2.INSTANCE_STATE_FETCHING and status.total_bytes:
        return f"{name} {100 * status.fetched_bytes // status.total_bytes}%"
    return name


def presence(device: device_pb2.Device) -> str:
    return device_pb2.DevicePresence.Name(device.presence).removeprefix("DEVICE_PRESENCE_")


def endpoint(entry: types_pb2.Endpoint) -> str:
    """An address that can be pasted into a browser or curl."""
    host = f"[{entry.host}]" if ":" in entry.host else entry.host
    return f"{entry.scheme}://{host}:{entry.port}"


def endpoints(status: types_pb2.InstanceStatus) -> str:
    return " ".join(endpoint(entry) for entry in status.endpoints) or "-"


def said(reason: str, message: str) -> str:
    """Reason and sentence in one cell, on one line."""
    return " ".join(": ".join(part for part in (reason, message) if part).split())


def labels(pairs: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(pairs.items())) or "-"


def deployments(entries: Sequence[deployment_pb2.Deployment], now: datetime, *, owner: bool = False) -> Sheet:
    columns = ("NAME", "STATE", "READY", "REVISION", "SINCE", "MESSAGE")
    rows = tuple(
        (
            entry.name,
            deployment_state(entry.state),
            f"{entry.instances_ready}/{entry.instances_wanted}",
            str(entry.revision),
            age(entry.since, now),
            said(entry.reason, entry.message),
        )
        for entry in entries
    )
    return owned(columns, rows, [entry.project for entry in entries] if owner else None)


def instances(entries: Sequence[deployment_pb2.Instance], now: datetime) -> Sheet:
    columns = ("DEPLOYMENT", "DEVICE", "STATE", "READY", "REVISION", "RESTARTS", "SINCE", "ENDPOINTS", "MESSAGE")
    rows = tuple(
        (
            entry.deployment_name,
            entry.device_name + ("" if entry.device_online else " (offline)"),
            instance_state(entry.status),
            "yes" if entry.status.ready else "no",
            str(entry.status.revision or entry.wanted_revision),
            str(entry.status.restarts),
            age(entry.status.since, now),
            endpoints(entry.status),
            said(entry.status.reason, entry.status.message),
        )
        for entry in entries
    )
    return Sheet(columns, rows)


def devices(entries: Sequence[device_pb2.Device], now: datetime) -> Sheet:
    columns = ("NAME", "PRESENCE", "PROFILE", "LAST SEEN", "LABELS", "ID", "CONDITION")
    rows = tuple(
        (
            entry.name,
            presence(entry),
            entry.profile or "-",
            age(entry.last_seen, now),
            labels(entry.labels),
            entry.id,
            entry.agent_condition,
        )
        for entry in entries
    )
    return Sheet(columns, rows)


def event_line(event: event_pb2.Event) -> str:
    """One event on one line: number, time, kind, state, what, why."""
    kind = event_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower()
    state = event.state + (" ready" if event.ready and event.state != "READY" else "")
    what = {
        "build": event.build_id,
        "device": event.device_id,
        "instance": f"{event.deployment_id} on {event.device_id}",
    }.get(kind, event.deployment_id)
    revision = f" r{event.revision}" if event.revision else ""
    why = said(event.reason, event.message)
    return f"{event.number:>6}  {clock(event.time)}  {kind:<10}  {state:<13}  {what}{revision}  {why}".rstrip()


def owned(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], owners: list[types_pb2.Project] | None) -> Sheet:
    """With a first column that names the project, where several are shown."""
    if owners is None:
        return Sheet(columns, rows)
    named = (f"{owner.user_id}/{owner.project_id}" for owner in owners)
    return Sheet(("PROJECT", *columns), tuple((name, *row) for name, row in zip(named, rows, strict=True)))
