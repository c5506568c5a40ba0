"""What the agent remembers of a deployment between two rounds, and how each thing that happens changes it.

All functions here are pure: an event and an instant go in, a new record comes out. `record_codec` makes them durable.
"""

import signal
from dataclasses import dataclass, field, replace
from enum import StrEnum

from edge_agent.runtime.backend import INSTANCE_DAMAGED, Handle, Observed
from edge_agent.runtime.model import Check, RestartPolicy, Workload

BACKOFF_FIRST = 1.0
BACKOFF_CAP = 300.0
# A revision that fails so often in a row before it was ever ready gives way to the one that was ready before.
TRIES_BEFORE_RETURN = 3
# An instance that was ready for so long has made good its failures.
STABLE_AFTER = 60.0
READINESS_DEADLINE = "ReadinessDeadline"
LIVENESS = "LivenessFailed"
KEPT_COURSES = 3


@dataclass(frozen=True)
class Moment:
    """One instant: `monotonic` for every delay, `wall` (seconds since the epoch) only for what is shown."""

    monotonic: float
    wall: float


class Stage(StrEnum):
    """In what a revision failed."""

    FETCH = "fetch"
    START = "start"
    RUN = "run"


class Verdict(StrEnum):
    """Whether a revision is still tried."""

    OPEN = "open"
    FAILED = "failed"
    COMPLETED = "completed"


@dataclass(frozen=True)
class Failure:
    """Why a try failed. `final` is meant for people's eyes too: nothing but a new revision helps."""

    stage: Stage
    reason: str
    message: str
    final: bool = False
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Course:
    """How one revision fares on this device.

    `attempts` are failed tries in a row; before `next_try` (monotonic) it is not tried again, and `next_try_at` is
    the same by the wall clock. `settled` is the instance whose end is accounted for: it is never counted again,
    and stopped if it should run. `proven` is the instance that was ready last.
    """

    revision: int
    prepared: bool = False
    starts: int = 0
    attempts: int = 0
    next_try: float = 0.0
    next_try_at: float = 0.0
    failure: Failure | None = None
    exit_code: int | None = None
    verdict: Verdict = Verdict.OPEN
    settled: Handle | None = None
    proven: Handle | None = None

    @property
    def restarts(self) -> int:
        return max(0, self.starts - 1)


@dataclass(frozen=True)
class Health:
    """What the checks of one running instance have said; lives in memory only.

    `since` is when this agent first saw it run. Until `answered` nobody knows whether it is ready. `deaths` are
    liveness checks that failed in a row, `last_gasp` is what the last of them said.
    """

    handle: Handle
    since: float
    answered: bool = False
    ever_ready: bool = False
    ready: bool = False
    ready_since: float = 0.0
    failures: int = 0
    said: str = ""
    deaths: int = 0
    last_gasp: str = ""


@dataclass(frozen=True)
class Record:
    """Everything remembered of one deployment. `fallback` is the last revision that was ready here."""

    deployment_id: str
    courses: tuple[Course, ...] = ()
    fallback: Workload | None = None
    # The revision that was ready before `fallback`: its artifact is kept on the device for a quick return.
    previous: Workload | None = None
    # Of the instances that are asked, the newest first.
    healths: tuple[Health, ...] = field(default=(), compare=False)

    def course(self, revision: int) -> Course:
        """How this revision fares; a blank one where nothing has happened yet."""
        return next((course for course in self.courses if course.revision == revision), Course(revision))

    def fallback_for(self, revision: int) -> Workload | None:
        """The other revision to which this one can give way."""
        return self.fallback if self.fallback is not None and self.fallback.revision != revision else None

    def health_of(self, handle: Handle) -> Health | None:
        return next((health for health in self.healths if health.handle == handle), None)

    def with_health(self, health: Health) -> "Record":
        """This record with what is known of one instance replaced, or added as the newest; of those whose end is
        accounted for nothing is kept."""
        if self.health_of(health.handle) is None:
            settled = {course.settled for course in self.courses}
            return replace(self, healths=(health, *(old for old in self.healths if old.handle not in settled)))
        return replace(self, healths=tuple(health if h.handle == health.handle else h for h in self.healths))

    def with_course(self, course: Course) -> "Record":
        """This record with one course replaced; those that can matter no more are dropped."""
        rest = sorted((c for c in self.courses if c.revision != course.revision), key=lambda c: -c.revision)
        needed = self.fallback.revision if self.fallback else None
        kept = [c for i, c in enumerate(rest) if i < KEPT_COURSES or c.revision == needed]
        return replace(self, courses=(course, *kept))


def backoff(attempts: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row: doubling from 1 s, at most 300 s, spread by ±20 %.

    `jitter` lies in [0, 1).
    """
    step = min(BACKOFF_CAP, BACKOFF_FIRST * 2.0 ** min(attempts - 1, 30))
    return min(BACKOFF_CAP, step * (0.8 + 0.4 * jitter))


def prepared(record: Record, workload: Workload) -> Record:
    """Everything to start is on the device. Failures to fetch it count no more."""
    course = record.course(workload.revision)
    if course.failure is not None and course.failure.stage is Stage.FETCH:
        course = replace(course, attempts=0, next_try=0.0, next_try_at=0.0, failure=None)
    return record.with_course(replace(course, prepared=True))


def unprepared(record: Record, workload: Workload) -> Record:
    """What was fetched has gone from the device."""
    return record.with_course(replace(record.course(workload.revision), prepared=False))


def started(record: Record, workload: Workload, handle: Handle, moment: Moment) -> Record:
    """A new instance runs."""
    course = record.course(workload.revision)
    course = replace(course, starts=course.starts + 1)
    return record.with_course(course).with_health(Health(handle, moment.monotonic))


def watched(record: Record, observed: Observed, moment: Moment) -> Record:
    """A running instance is seen for the first time, or taken over from an earlier life of this agent."""
    course = record.course(observed.revision)
    return record.with_health(Health(observed.handle, moment.monotonic, ever_ready=course.proven == observed.handle))


def failed(record: Record, workload: Workload, failure: Failure, moment: Moment, jitter: float) -> Record:
    """One more failure in a row: the revision backs off, or is given up if it cannot run or another one can."""
    course = record.course(workload.revision)
    attempts = course.attempts + 1
    delay = backoff(attempts, jitter)
    given_up = failure.final or _gives_way(record, course, failure, attempts)
    return record.with_course(
        replace(
            course,
            attempts=attempts,
            failure=failure,
            verdict=Verdict.FAILED if given_up else Verdict.OPEN,
            next_try=moment.monotonic + delay,
            next_try_at=moment.wall + delay,
        )
    )


def _gives_way(record: Record, course: Course, failure: Failure, attempts: int) -> bool:
    # While it is being fetched the revision before runs on, so that there is nothing to return to.
    if failure.stage is Stage.FETCH or course.proven or record.fallback_for(course.revision) is None:
        return False
    return attempts >= TRIES_BEFORE_RETURN or failure.reason == READINESS_DEADLINE


def ended(
    record: Record, workload: Workload, observed: Observed, lines: tuple[str, ...], moment: Moment, jitter: float
) -> Record:
    """An instance ended by itself: completed, to be tried again or given up, as its restart policy says."""
    course = replace(record.course(workload.revision), exit_code=observed.exit_code, settled=observed.handle)
    if observed.exit_code == 0 and workload.restart is not RestartPolicy.ALWAYS:
        return record.with_course(replace(course, verdict=Verdict.COMPLETED, failure=None, attempts=0))
    first = course.attempts == 0
    failure = _exit_failure(workload, observed, first, lines)
    after = failed(record.with_course(course), workload, failure, moment, jitter)
    if observed.exit_code is None and first and not failure.final and failure.reason != INSTANCE_DAMAGED:
        # The machine went down, not the workload: no reason to wait.
        course = replace(after.course(workload.revision), next_try=moment.monotonic, next_try_at=moment.wall)
        return after.with_course(course)
    return after


def _exit_failure(workload: Workload, observed: Observed, first: bool, lines: tuple[str, ...]) -> Failure:
    final = workload.restart is RestartPolicy.NEVER
    if observed.exit_reason == INSTANCE_DAMAGED:
        message = "what this device stores of the instance is damaged; it is made anew"
        return Failure(Stage.RUN, INSTANCE_DAMAGED, message, final, lines)
    if observed.exit_code is None:
        message = "the instance was cut off; how it ended is not known"
        return Failure(Stage.RUN, observed.exit_reason or "Interrupted", message, final, lines)
    message = f"the instance ended with exit code {describe_exit(observed.exit_code)}"
    if observed.started_at and observed.finished_at >= observed.started_at:
        message += f" after {observed.finished_at - observed.started_at:.1f} s"
    reason = observed.exit_reason or ("Exited" if first or final else "CrashLoop")
    return Failure(Stage.RUN, reason, message, final, lines)


def describe_exit(code: int) -> str:
    """An exit code for people: "137 (SIGKILL)"."""
    if code > 128:
        try:
            return f"{code} ({signal.Signals(code - 128).name})"
        except ValueError:
            pass
    return str(code)


def overdue(
    record: Record, workload: Workload, handle: Handle, lines: tuple[str, ...], moment: Moment, jitter: float
) -> Record:
    """An instance has not become ready in time; the caller stops it afterwards."""
    health = record.health_of(handle)
    said = f"; the check says: {health.said}" if health and health.said else ""
    message = f"not ready {workload.readiness.deadline:g} s after its start{said}"
    failure = Failure(Stage.RUN, READINESS_DEADLINE, message, last_lines=lines)
    return _given_up(record, workload, handle, failure, moment, jitter)


def lifeless(
    record: Record, workload: Workload, handle: Handle, lines: tuple[str, ...], moment: Moment, jitter: float
) -> Record:
    """An instance does not answer its liveness check any more; the caller stops it afterwards."""
    health = record.health_of(handle)
    message = f"failed {health.deaths if health else 0} liveness checks in a row"
    message += f"; the check says: {health.last_gasp}" if health and health.last_gasp else ""
    failure = Failure(Stage.RUN, LIVENESS, message, last_lines=lines)
    return _given_up(record, workload, handle, failure, moment, jitter)


def _given_up(
    record: Record, workload: Workload, handle: Handle, failure: Failure, moment: Moment, jitter: float
) -> Record:
    course = replace(record.course(workload.revision), settled=handle)
    return failed(record.with_course(course), workload, failure, moment, jitter)


def retired(record: Record, revision: int, handle: Handle) -> Record:
    """The agent itself ends this instance: its end is no failure."""
    return record.with_course(replace(record.course(revision), settled=handle))


def recovered(record: Record, revision: int) -> Record:
    """An instance has been ready for long enough: its earlier failures count no more."""
    return record.with_course(replace(record.course(revision), attempts=0, failure=None))


def checked(record: Record, workload: Workload, handle: Handle, ok: bool, said: str, moment: Moment) -> Record:
    """A check of a running instance has an answer. The first good one proves its revision."""
    health = record.health_of(handle)
    if health is None:
        return record
    if not ok:
        return record.with_health(_missed(health, workload.readiness, said))
    since = health.ready_since if health.ready else moment.monotonic
    health = replace(health, answered=True, ever_ready=True, ready=True, ready_since=since, failures=0, said=said)
    return _proven(record, workload, handle).with_health(health)


def lived(record: Record, handle: Handle, ok: bool, said: str) -> Record:
    """A liveness check of a running instance has an answer."""
    health = record.health_of(handle)
    if health is None:
        return record
    return record.with_health(replace(health, deaths=0 if ok else health.deaths + 1, last_gasp="" if ok else said))


def is_lifeless(health: Health, workload: Workload) -> bool:
    """Whether the instance has failed its liveness check too often in a row."""
    return workload.liveness is not None and health.deaths >= workload.liveness.failure_threshold


def _missed(health: Health, check: Check, said: str) -> Health:
    failures = health.failures + 1
    ready = health.ready and failures < check.failure_threshold
    return replace(health, answered=True, ready=ready, failures=failures, said=said)


def _proven(record: Record, workload: Workload, handle: Handle) -> Record:
    course = record.course(workload.revision)
    if course.proven == handle and record.fallback == workload:
        return record
    previous = record.fallback_for(workload.revision)
    record = replace(record, fallback=workload, previous=previous or record.previous)
    return record.with_course(replace(course, proven=handle))
