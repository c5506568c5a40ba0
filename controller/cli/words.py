"""From messages to cells: states without prefix, ages, addresses. Pure; the time is an argument."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from controller.cli.output import Sheet
from longshore.v1 import build_pb2, deployment_pb2, device_pb2, event_pb2, mqtt_pb2, types_pb2

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


def scheduling(device: device_pb2.Device) -> str:
    """ "-" where the controller is older than cordons are."""
    name = device_pb2.DeviceScheduling.Name(device.scheduling).removeprefix("DEVICE_SCHEDULING_")
    return "-" if name == "UNSPECIFIED" else name


def scheduling_told(device: device_pb2.Device) -> str:
    """Who said so, when and why, and what it waits for; "" where all may be placed there."""
    if device.scheduling <= device_pb2.DEVICE_SCHEDULING_OPEN:
        return ""
    said = f"{scheduling(device)} by {device.scheduling_by or '-'}, {clock(device.scheduling_since)} UTC"
    return ": ".join(part for part in (said, device.scheduling_reason, device.scheduling_message) if part)


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


def deployments(
    entries: Sequence[deployment_pb2.Deployment], now: datetime, *, owner: bool = False, wide: bool = False
) -> Sheet:
    """`wide`: with ids, and when it was changed last."""
    more = ("UPDATED", "BUILD", "ID") if wide else ()
    columns = ("NAME", "STATE", "READY", "REVISION", "SINCE", *more, "MESSAGE")
    rows = tuple(
        (
            entry.name,
            deployment_state(entry.state),
            f"{entry.instances_ready}/{entry.instances_wanted}",
            str(entry.revision),
            age(entry.since, now),
            *((clock(entry.updated), entry.build_id or "-", entry.id) if wide else ()),
            said(entry.reason, entry.message),
        )
        for entry in entries
    )
    return owned(columns, rows, [entry.project for entry in entries] if owner else None)


def instances(entries: Sequence[deployment_pb2.Instance], now: datetime, *, wide: bool = False) -> Sheet:
    """`wide`: with the digest of what runs, failed tries, and when the device was seen last."""
    more = ("ATTEMPTS", "SEEN", "DIGEST") if wide else ()
    columns = ("DEPLOYMENT", "DEVICE", "STATE", "READY", "REVISION", "RESTARTS", "SINCE", "ENDPOINTS", *more, "MESSAGE")
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
            *(_more_of(entry, now) if wide else ()),
            said(entry.status.reason, entry.status.message),
        )
        for entry in entries
    )
    return Sheet(columns, rows)


def _more_of(entry: deployment_pb2.Instance, now: datetime) -> tuple[str, ...]:
    status = entry.status
    return str(status.attempts), f"{age(entry.device_last_seen, now)} ago", status.artifact_digest or "-"


def top(entries: Sequence[deployment_pb2.Instance], now: datetime) -> Sheet:
    """What runs uses, what uses most of the processor first."""
    columns = ("DEPLOYMENT", "DEVICE", "CPU", "MEMORY", "PEAK", "RECEIVED", "SENT", "READ", "WRITTEN", "ACCELERATORS",
               "MEASURED")  # fmt: skip
    ordered = sorted(entries, key=lambda entry: (-entry.use.cpu_millis_per_second, entry.deployment_name))
    return Sheet(columns, tuple((entry.deployment_name, entry.device_name, *_used(entry, now)) for entry in ordered))


def _used(entry: deployment_pb2.Instance, now: datetime) -> tuple[str, ...]:
    if not entry.HasField("use"):
        return ("-",) * 9
    use, metrics = entry.use, entry.use.metrics
    share = f"{use.cpu_millis_per_second / 10:.0f} %" if use.HasField("cpu_millis_per_second") else "-"
    moved = (
        metrics.network_received_bytes, metrics.network_sent_bytes,
        metrics.block_read_bytes, metrics.block_written_bytes,
    )  # fmt: skip
    accelerators = ", ".join(_accelerator_use(one) for one in metrics.accelerators)
    memory = (size(kib * 1024) if kib else "-" for kib in (metrics.memory_kib, metrics.memory_peak_kib))
    return (share, *memory, *(size(count) for count in moved), accelerators or "-", f"{age(use.measured, now)} ago")


def _accelerator_use(use: mqtt_pb2.AcceleratorUse) -> str:
    memory = f" {size(use.memory_kib * 1024)}" if use.memory_kib else ""
    return f"{use.name} {use.busy_percent} %{memory}"


def accelerators(facts: device_pb2.DeviceFacts) -> str:
    """Each kind with its number: "2 x nvidia.com/gpu"."""
    kinds = Counter(accelerator.kind for accelerator in facts.accelerators)
    return ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in sorted(kinds.items())) or "-"


def device_facts(facts: device_pb2.DeviceFacts) -> Sheet:
    """All that a device tells of itself, a line each."""
    rows = [
        ("model", facts.model or "-"),
        ("system", f"{facts.os}, kernel {facts.kernel}"),
        ("processor", f"{facts.architecture}, {facts.cpus} cores"),
        ("memory", size(facts.memory_bytes)),
        *(("disk", f"{disk.path}: {size(disk.free_bytes)} of {size(disk.size_bytes)} free") for disk in facts.disks),
        *(("accelerator", _accelerator(accelerator)) for accelerator in facts.accelerators),
        ("agent", facts.agent_version or "-"),
        ("backend", facts.backend or "-"),
        ("can do", ", ".join(facts.capabilities) or "-"),
    ]
    return Sheet(("FACT", "VALUE"), tuple(rows))


def _accelerator(accelerator: device_pb2.Accelerator) -> str:
    parts = [
        accelerator.name,
        size(accelerator.memory_bytes) if accelerator.memory_bytes else "",
        f"driver {accelerator.driver}" if accelerator.driver else "",
        " ".join(accelerator.devices),
    ]
    return f"{accelerator.kind}: {', '.join(part for part in parts if part) or 'no device'}"


def devices(entries: Sequence[device_pb2.Device], now: datetime, *, wide: bool = False) -> Sheet:
    """`wide`: with what the devices tell of themselves."""
    columns = ("NAME", "PRESENCE", "SCHEDULING", "PROFILE", "LAST SEEN", "LABELS", "ID")
    told = ("ARCH", "CPUS", "MEMORY", "MODEL", "ACCELERATORS", "BACKEND") if wide else ()
    rows = tuple(
        (
            entry.name,
            presence(entry),
            scheduling(entry),
            entry.profile or "-",
            age(entry.last_seen, now),
            labels(entry.labels),
            entry.id,
            *(_told(entry.facts) if wide else ()),
            entry.agent_condition,
        )
        for entry in entries
    )
    return Sheet((*columns, *told, "CONDITION"), rows)


def _told(facts: device_pb2.DeviceFacts) -> tuple[str, ...]:
    memory = size(facts.memory_bytes) if facts.memory_bytes else "-"
    return (
        facts.architecture or "-", str(facts.cpus or "-"), memory,
        facts.model or "-", accelerators(facts), facts.backend or "-",
    )  # fmt: skip


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
