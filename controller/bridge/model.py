"""What the Project Manager asked for, and what of it is true: pure judgements in TANGO's words."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from longshore import outcome
from longshore.client import Answer
from longshore.v1 import deployment_pb2

_GONE = (deployment_pb2.DEPLOYMENT_STATE_STOPPED, deployment_pb2.DEPLOYMENT_STATE_DELETED)
_GOING = (deployment_pb2.DEPLOYMENT_STATE_STOPPING, deployment_pb2.DEPLOYMENT_STATE_DELETING)


class Status(StrEnum):
    """The words of `/status_request` and of reports; the manager knows no others."""

    READY = "ready"
    STARTED = "started"
    BUILDING = "building"
    PREPARING = "preparing"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    COMPLETED = "completed"


@dataclass(frozen=True)
class Key:
    """Whose project."""

    user_id: str
    project_id: str


@dataclass(frozen=True)
class Entry:
    """What was asked for last in a project, and how far it is. `request_id`: of this asking; makes repeats harmless."""

    key: Key
    request_id: str
    stop: bool = False
    # Of the deployments that were started here; the last one is the present one.
    names: tuple[str, ...] = ()
    # False until the controller has accepted it.
    applied: bool = False
    # What the controller said last, for when it is away.
    seen: Status = Status.STARTED
    reason: str = ""
    message: str = ""
    # The word to report; None while the outcome is open.
    end: Status | None = None
    reported: bool = False

    @property
    def name(self) -> str:
        return self.names[-1] if self.names else ""

    def named(self, name: str) -> "Entry":
        """With this one as the present deployment; those before are still known."""
        return replace(self, names=(*(known for known in self.names if known != name), name))

    def ended(self, end: Status, reason: str = "", message: str = "") -> "Entry":
        return replace(self, end=end, seen=end, reason=reason, message=message)


def started(key: Key, request_id: str, before: Entry | None, name: str) -> Entry:
    """The entry of a new start; what was started under other names before is still known."""
    return Entry(key, request_id, names=before.names if before else ()).named(name)


def stopping(key: Key, request_id: str, before: Entry | None, newest: Answer | None) -> Entry:
    """The entry of a stop. What was seen last is still so. `newest`: the deployment of a project that has no entry."""
    if before is not None:
        return replace(before, request_id=request_id, stop=True, end=None, reported=False)
    if newest is None:
        return Entry(key, request_id, stop=True, seen=Status.READY)
    seen = judged(newest)
    names = (newest.deployment.name,)
    return Entry(key, request_id, True, names, seen=seen.status, reason=seen.reason, message=seen.message)


@dataclass(frozen=True)
class Seen:
    """What is true of a deployment. `end`: what to report, where that ends the start."""

    status: Status
    reason: str = ""
    message: str = ""
    end: Status | None = None


def judged(answer: Answer) -> Seen:
    """The truth about the present revision: a failure is never told as running, what still runs never as stopped."""
    deployment = answer.deployment
    reason, message = deployment.reason, deployment.message
    if deployment.state in _GONE:
        return Seen(Status.STOPPED, reason, message, Status.STOPPED)
    if deployment.state in _GOING:
        return Seen(Status.RUNNING, reason, message)
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_BUILDING:
        return Seen(Status.BUILDING, reason, message)
    end = outcome.ready(answer, deployment.revision)
    if end and end.ok:
        return Seen(Status.RUNNING, reason, message, Status.COMPLETED)
    if end:
        return Seen(Status.FAILED, end.reason, end.message, Status.FAILED)
    some = deployment.state == deployment_pb2.DEPLOYMENT_STATE_DEGRADED and deployment.instances_ready
    return Seen(Status.RUNNING if some else Status.PREPARING, reason, message)


def going(answer: Answer) -> bool:
    """Whether it was told to stop, and has not stopped yet."""
    return answer.deployment.state in _GOING


def addresses(answer: Answer) -> list[dict[str, Any]]:
    """Where the instances that are ready can be reached."""
    return [
        {"device": one.device_name, "name": one.endpoint.name,
         "address": f"{one.endpoint.scheme}://{_host(one.endpoint.host)}:{one.endpoint.port}"}
        for one in answer.deployment.endpoints
    ]  # fmt: skip


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
