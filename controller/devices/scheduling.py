"""What may be placed on a device: labels, cordon, drain. Every function works in one transaction."""

import time
from collections.abc import Collection, Mapping, Sequence

from controller.builds.model import BuildState
from controller.deployments.assess import reassess
from controller.deployments.model import Deployment, Wish, WorkloadRow
from controller.deployments.placing import place
from controller.devices.model import Device, Presence, Scheduling
from controller.events.model import NO_PROJECT, EventKind, NewEvent
from controller.store import Transaction
from controller.store.workloads import Placement


def place_all(tx: Transaction) -> None:
    """Afterwards every deployment that runs is where it belongs now."""
    for deployment in tx.deployments.running():
        reassess(tx, place(tx, deployment))


def relabel(tx: Transaction, device: Device, labels: Mapping[str, str]) -> None:
    """Afterwards the device carries these labels, and no others."""
    if dict(device.labels) == dict(labels):
        return
    tx.devices.change(device.id, labels=dict(labels))
    told = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    tx.events.append(device_event(device, "LABELLED", message=_told(device, told or "no labels")))
    place_all(tx)


def cordon(tx: Transaction, device: Device, by: str, reason: str) -> None:
    """Afterwards nothing new comes to the device. One that was drained gets back what it has kept."""
    _set(tx, device, Scheduling.CORDONED, by, reason)
    _give_back(tx, device)


def drain(tx: Transaction, device: Device, by: str, reason: str) -> None:
    """Afterwards the device is wished to run nothing. A second call only changes what is said about it."""
    _set(tx, device, Scheduling.DRAINING, by, reason)
    for row in tx.workloads.of_device(device.id):
        # Also of deployments whose next revision is being built, which are placed later.
        if row.wish is Wish.RUN:
            tx.workloads.wish(row.deployment_id, device.id, Wish.STOP)
            tx.devices.advance(device.id)
    place_all(tx)
    assess_drain(tx, device.id)


def uncordon(tx: Transaction, device: Device) -> None:
    """Afterwards the device has what belongs there."""
    if device.scheduling is Scheduling.OPEN:
        return
    _set(tx, device, Scheduling.OPEN, "", "")
    _give_back(tx, device)


def assess_drain(tx: Transaction, device_id: str) -> None:
    """Keeps DRAINING and DRAINED equal to what the device has said; a change writes an event."""
    device = tx.devices.get(device_id)
    if device is None or not device.scheduling.drains:
        return
    now = Scheduling.DRAINING if left(tx, device_id) else Scheduling.DRAINED
    if now is not device.scheduling:
        tx.devices.change(device_id, scheduling=now.value)
        tx.events.append(device_event(device, now.value, message=_told(device, device.scheduling_reason)))


def left(tx: Transaction, device_id: str) -> list[Placement]:
    """What a device has, or may have, running. It is none only by the device's own word: of one that has not taken
    note of its newest wish, everything is left."""
    return [placement for placement in tx.workloads.placements(device_id=device_id) if not _at_rest(placement)]


def evidence(device: Device, placements: Sequence[Placement]) -> str:
    """Why the device is still draining."""
    names = [f"{one.deployment_name} ({one.instance.state if one.instance else 'not reported'})" for one in placements]
    away = "" if device.presence is Presence.ONLINE else f"; {device.name} is {device.presence.lower()}"
    return f"{len(names)} left: {', '.join(names)}{away}"


def device_event(device: Device, state: str, reason: str = "", message: str = "") -> NewEvent:
    """An event of the log that belongs to no project."""
    text = message or device.name
    return NewEvent(NO_PROJECT, EventKind.DEVICE, state, device_id=device.id, reason=reason, message=text)


def changed_labels(labels: Mapping[str, str], new: Mapping[str, str], remove: Collection[str]) -> dict[str, str]:
    """Labels once these are set and those removed."""
    return {key: value for key, value in {**labels, **new}.items() if key not in remove}


def _give_back(tx: Transaction, device: Device) -> None:
    """`device`: as it was before. Afterwards it has what may be there now, also what a drain had stopped."""
    place_all(tx)
    stopped = tx.workloads.of_device(device.id) if device.scheduling.drains else []
    for row in stopped:
        deployment = tx.deployments.get(row.deployment_id)
        # Its next revision is being built, or could not be: until then the one before goes on.
        if row.wish is Wish.STOP and deployment is not None and _goes_on(tx, row, deployment):
            tx.workloads.wish(row.deployment_id, device.id, Wish.RUN)
            tx.devices.advance(device.id)
            reassess(tx, deployment)


def _goes_on(tx: Transaction, row: WorkloadRow, deployment: Deployment) -> bool:
    """Whether a device may run this revision until the present one is built: not where one in between was built while
    the device was drained, since the secrets of those before it are gone then."""
    between = [tx.revisions.get(deployment.id, number) for number in range(row.revision + 1, deployment.revision)]
    builds = [tx.builds.get(revision.build_id) for revision in between if revision is not None]
    overtaken = any(build is not None and build.state is BuildState.SUCCEEDED for build in builds)
    return deployment.wish is Wish.RUN and not overtaken


def _set(tx: Transaction, device: Device, scheduling: Scheduling, by: str, reason: str) -> None:
    opens = scheduling is Scheduling.OPEN
    drained_before = scheduling is Scheduling.DRAINING and device.scheduling.drains
    tx.devices.change(
        device.id, scheduling=(device.scheduling if drained_before else scheduling).value, scheduling_by=by,
        scheduling_reason=reason, scheduling_since=0.0 if opens else time.time(),
    )  # fmt: skip
    if not drained_before and scheduling is not device.scheduling:
        tx.events.append(device_event(device, scheduling.value, message=_told(device, reason)))


def _told(device: Device, text: str) -> str:
    return f"{device.name}: {text}" if text else device.name


def _at_rest(placement: Placement) -> bool:
    if not placement.observed or placement.workload.wish is not Wish.STOP:
        return False
    return placement.instance is None or placement.instance.state == "STOPPED"
