"""Every change of a target passes here: with it its event, what the end of the build brings, and its deployments."""

import time
from dataclasses import replace

from controller.builds.model import ArtifactKind, Build, BuildState, BuildTarget
from controller.deployments.assess import reassess
from controller.deployments.placing import place
from controller.events.model import EventKind, NewEvent, Project
from controller.store import Transaction

CANCELLED_TEXT = "cancelled by request"


def record(tx: Transaction, build_id: str, target: BuildTarget) -> Build:
    """Stores the target as it is now. With the last target the build ends, or what is to be joined is joined first.
    Answers the build as it is then. Raises LookupError."""
    tx.builds.change_target(build_id, target)
    build = existing(tx, build_id)
    tx.events.append(target_event(build, target))
    if all(each.done for each in build.targets):
        tx.builds.wipe_secrets(build_id)
        if needs_naming(build):
            build = replace(build, join_next=time.time())
            tx.builds.change(build)
    settle(tx, build)
    return build


def settle(tx: Transaction, build: Build) -> None:
    """The deployments of the build are as its state has them."""
    if build.ended:
        tx.builds.tell_ended(build.id)
    for deployment in tx.deployments.of_build(build.id):
        reassess(tx, place(tx, deployment))


def cancelled(target: BuildTarget) -> BuildTarget:
    """The target after its end by request."""
    return replace(
        target, state=BuildState.CANCELLED, reason="Cancelled", message=CANCELLED_TEXT, ended=time.time(), next_try=0.0
    )


def needs_naming(build: Build) -> bool:
    """Whether its images are to be joined by an index, or given the build's id, or its artifacts the tags of the
    spec."""
    images, bundles = (made(build, kind) for kind in ArtifactKind)
    several = sum(target.kind is ArtifactKind.IMAGE for target in build.targets) > 1
    # What is left of a build that was cancelled waits for no registry, where there is nothing to be joined.
    cut_short = any(target.state is BuildState.CANCELLED for target in build.targets)
    tagged = bool(build.tags) and build.state is BuildState.SUCCEEDED
    joined = several and (len(images) > 1 or (bool(images) and not cut_short))
    return joined or (tagged and bool(images or bundles))


def made(build: Build, kind: ArtifactKind) -> tuple[BuildTarget, ...]:
    """Targets whose artifact of this kind lies in the registry."""
    return tuple(each for each in build.targets if each.artifact is not None and each.kind is kind)


def target_event(build: Build, target: BuildTarget) -> NewEvent:
    """The event that says in which state a target is."""
    message = f"{target.key}: {target.message}" if target.message else target.key
    return build_event(build, target.state, target.reason, message)


def build_event(build: Build, state: BuildState, reason: str, message: str) -> NewEvent:
    return NewEvent(
        project=Project(build.user_id, build.project_id),
        kind=EventKind.BUILD,
        state=state.value,
        build_id=build.id,
        reason=reason,
        message=message,
    )


def existing(tx: Transaction, build_id: str) -> Build:
    """Raises LookupError."""
    build = tx.builds.get(build_id)
    if build is None:
        raise LookupError(f"no build {build_id}")
    return build


def existing_target(tx: Transaction, build_id: str, key: str) -> tuple[Build, BuildTarget]:
    """Raises LookupError."""
    build = existing(tx, build_id)
    found = next((target for target in build.targets if target.key == key), None)
    if found is None:
        raise LookupError(f"build {build_id} has no target {key}")
    return build, found
