"""Whether what was asked of a build or a deployment is so: pure judgements of what the controller says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from longshore.v1 import build_pb2, deployment_pb2, types_pb2

# An instance that failed so often in a row is taken for broken by those who wait.
GIVE_UP_ATTEMPTS = 3
_GONE = (deployment_pb2.DEPLOYMENT_STATE_DELETING, deployment_pb2.DEPLOYMENT_STATE_DELETED)
_STOPPED = (deployment_pb2.DEPLOYMENT_STATE_STOPPING, deployment_pb2.DEPLOYMENT_STATE_STOPPED)


@dataclass(frozen=True)
class Outcome:
    """The end of waiting: success, or a failure with reason, sentence and last lines of output."""

    ok: bool
    reason: str = ""
    message: str = ""
    lines: tuple[str, ...] = ()


# Judges an answer; None while the outcome is open.
Judge = Callable[[deployment_pb2.GetDeploymentResponse], Outcome | None]


def ready(answer: deployment_pb2.GetDeploymentResponse, revision: int) -> Outcome | None:
    """The outcome of waiting until this revision is ready; None while it is still open."""
    deployment = answer.deployment
    if deployment.revision > revision:
        return Outcome(False, "Superseded", f"revision {deployment.revision} took the place of revision {revision}")
    if deployment.state in _GONE:
        return Outcome(False, "Deleted", f"{deployment.name} was deleted")
    if deployment.state in _STOPPED:
        return Outcome(False, "Stopped", f"{deployment.name} was stopped")
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_READY:
        return Outcome(True, "Ready", deployment.message)
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_FAILED:
        return Outcome(False, deployment.reason, deployment.message, _lines(answer.instances))
    return _given_up(answer.instances, revision)


def built(build: build_pb2.Build) -> Outcome | None:
    """The outcome of waiting until a build has ended; None while it is still open. A failure tells of the first target
    that failed, with its step and last lines."""
    if build.state == build_pb2.BUILD_STATE_SUCCEEDED:
        return Outcome(True)
    if build.state == build_pb2.BUILD_STATE_CANCELLED:
        return Outcome(False, "Cancelled", f"build {build.id} was cancelled")
    if build.state != build_pb2.BUILD_STATE_FAILED:
        return None
    for target in build.targets:
        if target.state == build_pb2.BUILD_STATE_FAILED:
            step = f" (in: {target.failed_step})" if target.failed_step else ""
            message = f"build {build.id} for {target.key or target.profile}: {target.message}{step}"
            return Outcome(False, target.reason or build.reason, message, tuple(target.last_lines))
    return Outcome(False, build.reason, f"build {build.id}: {build.message}")


def stopped(answer: deployment_pb2.GetDeploymentResponse) -> Outcome | None:
    """The outcome of waiting until nothing of it runs."""
    state = answer.deployment.state
    if state in (deployment_pb2.DEPLOYMENT_STATE_STOPPED, deployment_pb2.DEPLOYMENT_STATE_DELETED):
        return Outcome(True)
    if state not in (*_STOPPED, *_GONE):
        return Outcome(False, "Superseded", f"{answer.deployment.name} was started again")
    return None


def deleted(answer: deployment_pb2.GetDeploymentResponse) -> Outcome | None:
    """The outcome of waiting until it is deleted."""
    return Outcome(True) if answer.deployment.state == deployment_pb2.DEPLOYMENT_STATE_DELETED else None


def _given_up(instances: Iterable[deployment_pb2.Instance], revision: int) -> Outcome | None:
    for instance in instances:
        status = instance.status
        where = f"on {instance.device_name or instance.device_id}"
        rolled_back = status.reason == "RolledBack" and status.revision < revision
        failed = status.state == types_pb2.INSTANCE_STATE_FAILED and status.revision == revision
        looping = (
            status.state == types_pb2.INSTANCE_STATE_BACKOFF
            and status.revision == revision
            and status.attempts >= GIVE_UP_ATTEMPTS
        )
        if rolled_back or failed or looping:
            tries = f" ({status.attempts} failed tries)" if looping else ""
            return Outcome(False, status.reason, f"{where}: {status.message}{tries}", tuple(status.last_lines))
    return None


def _lines(instances: Iterable[deployment_pb2.Instance]) -> tuple[str, ...]:
    """The last lines of the first instance that has some."""
    return next((tuple(instance.status.last_lines) for instance in instances if instance.status.last_lines), ())
