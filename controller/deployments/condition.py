"""The state of a deployment, from its build and from what its devices say. Pure."""

from collections.abc import Sequence

from controller.builds.model import Build, BuildState
from controller.deployments.model import NOT_ENOUGH, Condition, Deployment, DeploymentState, InstanceRow, Wish
from controller.devices.model import Presence
from controller.store.workloads import Placement

# An instance in BACKOFF after so many failures in a row is what the deployment is judged by.
TROUBLED_ATTEMPTS = 1
# Reasons of a PENDING instance that is about to begin.
ABOUT_TO_BEGIN = ("Queued", "")


def condition(deployment: Deployment, build: Build | None, placements: Sequence[Placement]) -> Condition:
    """The state that the evidence supports: READY only when every device that should run it says that it answers."""
    if deployment.wish is Wish.DELETE:
        return _leaving(placements, DeploymentState.DELETING, DeploymentState.DELETED, "Deleted")
    if deployment.wish is Wish.STOP:
        left = [placement for placement in placements if not _stopped(placement)]
        return _leaving(left, DeploymentState.STOPPING, DeploymentState.STOPPED, "StoppedByUser")
    if build is not None and build.state is BuildState.FAILED and (target := build.failure) is not None:
        message = f"the build for {target.key} failed: {target.message}"
        return Condition(DeploymentState.FAILED, "BuildFailed", message)
    if build is not None and build.state is BuildState.CANCELLED:
        return Condition(DeploymentState.FAILED, "BuildCancelled", f"build {build.id} was cancelled; deploy again")
    if build is not None and build.state is not BuildState.SUCCEEDED:
        return _building(build)
    if not placements and deployment.left_out:
        first = deployment.left_out[0]
        return Condition(DeploymentState.PENDING, first.reason, f"no device can run it: {_left_out(deployment)}")
    if not placements:
        return Condition(DeploymentState.PENDING, "NoMatchingDevice", "no enrolled device matches the spec's targets")
    return _running(deployment, placements)


def _leaving(left: Sequence[Placement], going: DeploymentState, gone: DeploymentState, reason: str) -> Condition:
    if not left:
        return Condition(gone, reason, "")
    absent = [place.device_name for place in left if place.presence != Presence.ONLINE]
    if absent:
        return Condition(going, "WaitingForDevice", f"waits for {_names(absent)}, not online")
    return Condition(going, reason, f"{len(left)} instances left")


def _building(build: Build) -> Condition:
    waiting = next((target for target in build.targets if target.reason), None)
    if waiting is not None:
        return Condition(DeploymentState.BUILDING, waiting.reason, waiting.message)
    return Condition(DeploymentState.BUILDING, "Building", f"build {build.id} is {build.state.lower()}")


def _running(deployment: Deployment, placements: Sequence[Placement]) -> Condition:
    failed = [place for place in placements if (row := _current(deployment, place)) and row.state == "FAILED"]
    returned = [place for place in placements if _returned(place)]
    if failed or returned:
        return _of_instance(DeploymentState.FAILED, (failed or returned)[0])
    absent = [place for place in placements if place.presence != Presence.ONLINE]
    if absent and (len(absent) == len(placements) or any(_current(deployment, place) for place in absent)):
        return _absent(deployment, absent)
    troubled = [place for place in placements if _troubled(place.instance) or _completed(deployment, place)]
    if troubled:
        return _of_instance(DeploymentState.DEGRADED, troubled[0])
    count = sum(ready(deployment, place) for place in placements)
    if count == len(placements):
        without = f"; without {_left_out(deployment)}" if deployment.left_out else ""
        text = f"{count} of {count} instances ready{without}"
        if any(left.reason == NOT_ENOUGH for left in deployment.left_out):
            return Condition(DeploymentState.DEGRADED, NOT_ENOUGH, text)
        return Condition(DeploymentState.READY, "Ready", text)
    if absent and count == len(placements) - len(absent):
        waits = _absent(deployment, absent)
        return Condition(DeploymentState.DEGRADED, waits.reason, waits.message)
    held_up = [place for place in placements if _held_up(deployment, place)]
    if held_up and count == len(placements) - len(held_up):
        return _of_instance(DeploymentState.DEGRADED if count else DeploymentState.PENDING, held_up[0])
    without = f"; without {_left_out(deployment)}" if deployment.left_out else ""
    text = f"{count} of {len(placements)} instances ready{without}"
    return Condition(DeploymentState.PROGRESSING, "Progressing", text)


def ready(deployment: Deployment, placement: Placement) -> bool:
    """Whether the device is in sight and says that its instance of the present revision answers."""
    row = _current(deployment, placement)
    return placement.presence == Presence.ONLINE and row is not None and row.ready and bool(row.artifact_digest)


def _current(deployment: Deployment, placement: Placement) -> InstanceRow | None:
    """What the device said of the present revision. The digest guards against numbers that began anew, as they do when
    the database is restored from a backup."""
    row = placement.instance
    if row is None or row.revision != deployment.revision:
        return None
    return row if row.artifact_digest in ("", placement.workload.artifact.digest) else None


def _held_up(deployment: Deployment, placement: Placement) -> bool:
    """The device knows the wish and cannot begin, for a reason that it tells: its Podman is broken, say."""
    row = _current(deployment, placement)
    return row is not None and row.state == "PENDING" and row.reason not in ABOUT_TO_BEGIN


def _returned(placement: Placement) -> bool:
    row = placement.instance
    return row is not None and row.reason == "RolledBack" and row.revision != placement.workload.revision


def _troubled(row: InstanceRow | None) -> bool:
    if row is None:
        return False
    return (row.state == "BACKOFF" and row.attempts >= TROUBLED_ATTEMPTS) or (row.state == "RUNNING" and not row.ready)


def _completed(deployment: Deployment, placement: Placement) -> bool:
    """It has ended by itself and is not to be started again, while the deployment is wished to run."""
    row = _current(deployment, placement)
    return row is not None and row.state == "STOPPED"


def _absent(deployment: Deployment, absent: Sequence[Placement]) -> Condition:
    names = _names([place.device_name for place in absent])
    unknown = any(place.presence == Presence.UNKNOWN and place.last_seen for place in absent)
    reason = "DeviceUnknown" if unknown else "DeviceOffline"
    if any(_current(deployment, place) is not None for place in absent):
        state = "cannot be seen" if unknown else "offline"
        return Condition(DeploymentState.DEGRADED, reason, f"{names} {state}; its last report may be out of date")
    return Condition(DeploymentState.PENDING, reason, f"waits for {names} to come online")


def _stopped(placement: Placement) -> bool:
    row = placement.instance
    return row is not None and row.state == "STOPPED" and placement.observed


def _of_instance(state: DeploymentState, placement: Placement) -> Condition:
    row = placement.instance
    if row is None:
        raise ValueError("an instance is judged that nobody reported")
    return Condition(state, row.reason, f"{placement.device_name}: {row.message}")


def _left_out(deployment: Deployment) -> str:
    """Who and why: "edge-1 (it has ...)"."""
    return _names([f"{device.device_name} ({device.message})" for device in deployment.left_out])


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
