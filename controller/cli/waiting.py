"""`longshore wait`: until a deployment, a build or a device is in a state."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from controller.cli import session, words
from controller.cli.errors import UsageProblem
from controller.cli.session import Session
from longshore import outcome
from longshore.calls import Deadline
from longshore.errors import Reason
from longshore.failures import Failed, LongshoreError, WaitTimeout
from longshore.outcome import Outcome
from longshore.v1 import deployment_pb2, device_pb2


class Kind(StrEnum):
    DEPLOYMENT = "deployment"
    BUILD = "build"
    DEVICE = "device"


# What can be waited for of each kind; the first is what is waited for where nothing is said.
STATES: dict[Kind, tuple[str, ...]] = {
    Kind.DEPLOYMENT: ("ready", "stopped", "deleted"),
    Kind.BUILD: ("succeeded", "ended"),
    Kind.DEVICE: ("online", "offline", "drained"),
}


def wait(
    what: Annotated[str, typer.Argument(metavar="NAME|TYPE/NAME", help="TYPE: deployment, build or device.")],
    state: Annotated[str, typer.Option("--for", help="The state; see below.", show_default=False)] = "",
    timeout: session.Timeout = "",
    user: session.User = "",
    project: session.ProjectName = "",
    context: session.ContextFile = None,
) -> None:
    """Wait until something is so: ends with 0 then, with 1 once it cannot become so, with 3 at the time-out.

    A deployment can become ready, stopped or deleted; a build succeeded or ended; a device online, offline or drained.
    Without --for the first of these is meant. It is told of changes, and goes on while the controller is away.

    Examples:

      longshore wait digits --for ready --timeout 10m

      longshore wait build/ID --for ended

      longshore wait device/edge-7 --for drained
    """
    limit = session.seconds(timeout)
    kind, name = parsed(what)
    wanted = state.lower() or STATES[kind][0]
    if wanted not in STATES[kind]:
        raise UsageProblem(f"--for {state}: a {kind} can be waited for to be {', '.join(STATES[kind])}")
    with session.session(context, user, project) as here:
        try:
            WAITS[kind](here, name, wanted, limit)
        except WaitTimeout:
            raise WaitTimeout(f"{what} is not {wanted} in time") from None
    print(f"{what} is {wanted}")


def parsed(what: str) -> tuple[Kind, str]:
    """Kind and name. Raises UsageProblem."""
    word, slash, name = what.partition("/")
    if not slash:
        return Kind.DEPLOYMENT, what
    try:
        return Kind(word), name
    except ValueError:
        known = ", ".join(kind.value for kind in Kind)
        raise UsageProblem(f"'{word}' is nothing that can be waited for; known: {known}") from None


def judge_of(wanted: str) -> outcome.Judge:
    """When waiting for a deployment ends. One that is not even stopping yet may be stopped by somebody else."""
    if wanted == "ready":
        return lambda answer: outcome.ready(answer, answer.deployment.revision)
    if wanted == "deleted":
        return outcome.deleted
    return lambda answer: Outcome(True) if (end := outcome.stopped(answer)) is not None and end.ok else None


def _deployment(here: Session, name: str, wanted: str, limit: float | None) -> None:
    try:
        found = here.client.find_deployment(here.project, name)
    except LongshoreError as failure:
        if wanted == "deleted" and failure.reason == Reason.NO_SUCH_DEPLOYMENT and _was_deleted(here, name):
            return
        raise
    here.client.wait_until(found.deployment.id, judge_of(wanted), timeout=limit)


def _was_deleted(here: Session, name: str) -> bool:
    gone = here.client.list_deployments(here.project, states=[deployment_pb2.DEPLOYMENT_STATE_DELETED])
    return any(one.name == name for one in gone)


def _build(here: Session, build_id: str, wanted: str, limit: float | None) -> None:
    end = outcome.built(here.client.wait_for_build(build_id, timeout=limit))
    if wanted == "succeeded" and end is not None and not end.ok:
        raise Failed(end.reason, end.message, end.lines)


def _device(here: Session, name: str, wanted: str, limit: float | None) -> None:
    for device in here.client.follow_device(name, deadline=Deadline.after(limit)):
        if wanted == "drained" and device.scheduling < device_pb2.DEVICE_SCHEDULING_DRAINING:
            raise Failed("NotDrained", f"{device.name} is not being drained; `longshore devices drain` begins it")
        if wanted.upper() in (words.presence(device), words.scheduling(device)):
            return


WAITS: dict[Kind, Callable[[Session, str, str, float | None], None]] = {
    Kind.DEPLOYMENT: _deployment,
    Kind.BUILD: _build,
    Kind.DEVICE: _device,
}
