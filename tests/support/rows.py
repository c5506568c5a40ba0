"""Rows and placements for tests of pure logic."""

from dataclasses import replace

from controller.builds.model import Build, BuildState, BuildTarget, BuiltArtifact
from controller.deployments.model import Condition, Deployment, DeploymentState, InstanceRow, Wish, WorkloadRow
from controller.devices.model import Presence
from controller.events.model import Project
from controller.store.workloads import Placement

PROJECT = Project("alice", "digits")
ARTIFACT = BuiltArtifact("registry:5000/alice/digits/digits", "sha256:" + "a" * 64, "linux/amd64", 1000)


def deployment(wish: Wish = Wish.RUN, revision: int = 1) -> Deployment:
    accepted = Condition(DeploymentState.PENDING, "Accepted", "")
    return Deployment("dep-1", PROJECT, "digits", revision, wish, accepted, 1.0, "b-1", 1.0, 1.0, b"")


def build(*states: BuildState, message: str = "") -> Build:
    targets = [
        BuildTarget(
            f"profile-{number}",
            f"profile-{number}",
            "linux/amd64",
            state=state,
            reason="PackageNotFound" if message else "",
            message=message,
        )
        for number, state in enumerate(states)
    ]
    return Build("b-1", "alice", "digits", "digits", b"", (), tuple(targets), 1.0)


def instance(
    state: str = "RUNNING",
    *,
    ready: bool = True,
    revision: int = 1,
    reason: str = "Ready",
    digest: str = ARTIFACT.digest,
) -> InstanceRow:
    attempts = 1 if state == "BACKOFF" else 0
    return InstanceRow("dep-1", "dev-1", revision, state, ready, reason, "says the device", attempts, digest, b"")


def placement(
    row: InstanceRow | None = None, presence: Presence = Presence.ONLINE, wish: Wish = Wish.RUN, revision: int = 1
) -> Placement:
    workload = WorkloadRow("dep-1", "dev-1", revision, wish, ARTIFACT, b"")
    return Placement(workload, PROJECT, "digits", "edge", presence.value, 5.0, observed=True, instance=row)


def on(device: str, place: Placement) -> Placement:
    """The same placement on another device."""
    return replace(place, workload=replace(place.workload, device_id=device), device_name=device)
