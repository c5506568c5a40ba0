"""What is reported of each deployment: derived from the wish, what is observed and what is remembered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge_agent.runtime.backend import Observed, Phase, Progress
from edge_agent.runtime.case import Case, newest_first
from edge_agent.runtime.convert import Broken, timestamp
from edge_agent.runtime.model import HttpProbe, InferenceProbe, State, Workload
from edge_agent.runtime.plan import Prepare, Step
from edge_agent.runtime.record import Course, Record, Verdict
from edge_agent.runtime.updating import obstacle
from longshore.v1 import types_pb2
from longshore.v1.types_pb2 import Endpoint, InstanceStatus

ROLLED_BACK = "RolledBack"
STOPPED_BY_USER = "StoppedByUser"
REMOVED = "Removed"


@dataclass(frozen=True)
class Doing:
    """The steps that are under way for one deployment, and how far a fetch has come."""

    steps: Collection[Step] = ()
    progress: Progress | None = None

    def fetches(self, workload: Workload) -> bool:
        return any(isinstance(step, Prepare) and step.workload == workload for step in self.steps)


@dataclass(frozen=True)
class Setting:
    """What holds for all deployments: the address of the device, why the engine cannot work (or ""), and now."""

    host: str
    problem: str
    now: float


def state_pb(state: State) -> types_pb2.InstanceState.ValueType:
    return types_pb2.InstanceState.Value(f"INSTANCE_STATE_{state}")


def state_of(status: InstanceStatus) -> State:
    return State(types_pb2.InstanceState.Name(status.state).removeprefix("INSTANCE_STATE_"))


def wished_status(case: Case, doing: Doing, setting: Setting) -> InstanceStatus | None:
    """The status of a deployment that is to run; None while what just happened is still being looked into.

    `since` is left to the one who knows the status before.
    """
    subject = case.other if case.returned and case.other is not None else case.wish
    status = _about(subject, case.course(subject))
    alive = case.alive(subject)
    if alive:
        if not _running(status, case, subject, alive[0]):
            return None
    elif case.goal == subject and case.unaccounted(subject) is not None:
        return None
    else:
        _not_running(status, case, subject, doing, setting)
    serving = _serving(case, alive)
    if serving:
        status.endpoints.extend(_endpoints(serving[0], case.workload_of(serving[0]), setting.host))
    if case.returned:
        _explain_return(status, case)
    return status


def _serving(case: Case, alive: Sequence[Observed]) -> Sequence[Observed]:
    """The instance that answers at the endpoints: during an update that starts first, the old one until the new one
    is ready."""
    others = case.alive(case.other) if case.other is not None else ()
    health = case.record.health_of(alive[0].handle) if alive else None
    return alive if alive and (not others or (health is not None and health.ready)) else others or alive


def unseen_status(wish: Workload, problem: str) -> InstanceStatus:
    """The status of a deployment of which nothing was ever known, while the engine does not answer."""
    reason, _, message = problem.partition(": ")
    status = _about(wish, Course(wish.revision))
    _say(status, State.PENDING, reason, message)
    return status


def given_up_status(workload: Workload, record: Record) -> InstanceStatus:
    """The status of a revision at the moment when it is given up."""
    course = record.course(workload.revision)
    status = _about(workload, course)
    _explain_failure(status, State.FAILED, course)
    return status


def stopped_status(wish: Workload, instances: Collection[Observed]) -> InstanceStatus:
    """The status of a deployment that a user has stopped."""
    state = State.STOPPING if instances else State.STOPPED
    running = [i for i in instances if i.phase is Phase.RUNNING]
    return InstanceStatus(
        deployment_id=wish.deployment_id,
        revision=running[0].revision if running else wish.revision,
        state=state_pb(state),
        reason=STOPPED_BY_USER,
        message="a user stopped it",
        artifact_digest=wish.artifact.digest,
    )


def leaving_status(
    deployment_id: str, instances: Collection[Observed], before: InstanceStatus | None
) -> InstanceStatus:
    """The status of a deployment that is wished for no more, until it is gone."""
    newest = newest_first(tuple(instances))
    status = InstanceStatus(deployment_id=deployment_id, state=state_pb(State.STOPPING), reason=REMOVED)
    status.message = "it is not wished for any more"
    status.revision = newest[0].revision if newest else (before.revision if before else 0)
    status.artifact_digest = newest[0].artifact_digest if newest else (before.artifact_digest if before else "")
    return status


def gone_status(before: InstanceStatus) -> InstanceStatus:
    """The last that is said of a deployment that was removed."""
    return InstanceStatus(
        deployment_id=before.deployment_id,
        revision=before.revision,
        state=state_pb(State.STOPPED),
        reason=REMOVED,
        message="it was removed",
        artifact_digest=before.artifact_digest,
    )


def broken_status(broken: Broken) -> InstanceStatus:
    """The status of a deployment whose wish makes no sense to this agent and of which nothing was known."""
    return InstanceStatus(
        deployment_id=broken.deployment_id,
        revision=broken.revision,
        state=state_pb(State.FAILED),
        reason="InvalidWorkload",
        message=broken.problem,
    )


def _about(workload: Workload, course: Course) -> InstanceStatus:
    status = InstanceStatus(
        deployment_id=workload.deployment_id,
        revision=workload.revision,
        artifact_digest=workload.artifact.digest,
        restarts=course.restarts,
        attempts=course.attempts,
    )
    if course.exit_code is not None:
        status.exit_code = course.exit_code
    return status


def _running(status: InstanceStatus, case: Case, subject: Workload, observed: Observed) -> bool:
    """False while nobody knows yet whether an instance that was taken over is ready."""
    health = case.record.health_of(observed.handle)
    if health is None or (health.ever_ready and not health.answered):
        return False
    if health.ready:
        _say(status, State.RUNNING, "Ready", health.said)
        status.ready = True
    elif health.ever_ready:
        _say(status, State.RUNNING, "NotReady", health.said)
    else:
        _say(status, State.STARTING, "Starting", "; ".join(filter(None, (_beside(case, subject), health.said))))
        _add_lines(status, case.course(subject))
    return True


def _beside(case: Case, subject: Workload) -> str:
    kept = case.kept(subject)
    return f"revision {kept.revision} serves until this one is ready" if kept is not None else ""


def _not_running(status: InstanceStatus, case: Case, subject: Workload, doing: Doing, setting: Setting) -> None:
    course = case.course(subject)
    if course.verdict is Verdict.FAILED:
        _explain_failure(status, State.FAILED, course)
    elif course.verdict is Verdict.COMPLETED:
        _say(status, State.STOPPED, "Completed", "it ended with exit code 0 and is not to be started again")
    elif course.failure is not None and setting.now < course.next_try:
        _explain_failure(status, State.BACKOFF, course)
        status.next_try.CopyFrom(timestamp(course.next_try_at))
    elif doing.fetches(subject):
        _say(status, State.FETCHING, "Fetching", _meanwhile(case))
        if doing.progress is not None:
            status.fetched_bytes, status.total_bytes = doing.progress.fetched_bytes, doing.progress.total_bytes
    elif course.prepared and not setting.problem:
        _say(status, State.STARTING, "Starting", _stopping(case, subject))
        _add_lines(status, course)
    else:
        reason, _, message = setting.problem.partition(": ")
        _say(status, State.PENDING, reason or "Queued", message)


def _meanwhile(case: Case) -> str:
    return f"revision {case.running[0].revision} runs on until all of it is here" if case.running else ""


def _stopping(case: Case, subject: Workload) -> str:
    others = [i for i in case.running if i.revision != subject.revision]
    if not others:
        return ""
    if case.kept(subject) is not None:
        return _beside(case, subject)
    old = case.workload_of(others[0])
    why = obstacle(subject, old) if old is not None else ""
    return f"revision {others[0].revision} is stopping to make room{f': {why}' if why else ''}"


def _say(status: InstanceStatus, state: State, reason: str, message: str) -> None:
    status.state, status.reason, status.message = state_pb(state), reason, message


def _explain_failure(status: InstanceStatus, state: State, course: Course) -> None:
    failure = course.failure
    _say(status, state, failure.reason if failure else "Failed", failure.message if failure else "")
    _add_lines(status, course)


def _add_lines(status: InstanceStatus, course: Course) -> None:
    if course.failure is not None:
        status.last_lines.extend(course.failure.last_lines)


def _explain_return(status: InstanceStatus, case: Case) -> None:
    """What runs instead, and why: the revision that is wished for has failed."""
    failure = case.course(case.wish).failure
    why = f"{failure.reason}: {failure.message}" if failure else "it failed"
    story = f"revision {case.wish.revision} was given up ({why}); revision {status.revision} was brought back"
    settled = status.ready or state_of(status) is State.STARTING
    status.message = story if settled else f"{status.message}; {story}"
    if settled:
        status.reason = ROLLED_BACK
        del status.last_lines[:]
        status.last_lines.extend(failure.last_lines if failure else ())


def _endpoints(observed: Observed, workload: Workload | None, host: str) -> list[Endpoint]:
    probe = workload.readiness.probe if workload else None
    http = probe.port if isinstance(probe, HttpProbe | InferenceProbe) else ""
    return [
        Endpoint(name=name, host=host, port=port, scheme="http" if name == http else "tcp")
        for name, (_, port) in observed.addresses
    ]
