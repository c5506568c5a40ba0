"""What is told of a deployment, and which changes of it are told."""

import itertools
from dataclasses import replace

import pytest

from edge_agent.runtime.apply import newest_lines
from edge_agent.runtime.backend import Observed, Phase, Progress
from edge_agent.runtime.board import FOLLOWS, Board
from edge_agent.runtime.case import Case
from edge_agent.runtime.model import Check, HttpProbe, Port, State, Workload
from edge_agent.runtime.plan import Prepare
from edge_agent.runtime.record import (
    Course,
    Failure,
    Moment,
    Record,
    Stage,
    Verdict,
    checked,
    failed,
    prepared,
    started,
)
from edge_agent.runtime.status import Doing, Setting, state_of, state_pb, wished_status
from longshore.v1.types_pb2 import InstanceStatus
from tests.support.workloads import at, make_observed, make_workload

WISH = make_workload(readiness=Check(HttpProbe("http", "/")), ports=(Port("http", 8000, 80), Port("metrics", 9000)))
ADDRESSES = (("http", ("127.0.0.1", 31000)), ("metrics", ("127.0.0.1", 31001)))
INSTANCE = make_observed(addresses=ADDRESSES)
SETTING = Setting("10.0.0.7", "", 100.0)


def status_of(
    *instances: Observed,
    record: Record | None = None,
    wish: Workload = WISH,
    doing: Doing | None = None,
    problem: str = "",
) -> InstanceStatus:
    found = wished_status(
        Case(wish, instances, record or Record("d1")), doing or Doing(), replace(SETTING, problem=problem)
    )
    assert found is not None
    return found


def running() -> Record:
    return started(prepared(Record("d1"), WISH), WISH, INSTANCE.handle, at(100))


def test_a_wish_with_which_nothing_has_begun_is_pending_and_says_why() -> None:
    assert state_of(status_of()) is State.PENDING
    waiting = status_of(problem="PodmanUnavailable: no socket")
    assert (waiting.reason, waiting.message) == ("PodmanUnavailable", "no socket")


def test_a_fetch_tells_its_bytes() -> None:
    status = status_of(doing=Doing((Prepare("d1", WISH),), Progress(10, 100)))
    assert (state_of(status), status.fetched_bytes, status.total_bytes) == (State.FETCHING, 10, 100)


def test_an_instance_is_starting_until_its_check_answers_and_then_running() -> None:
    record = running()
    assert state_of(status_of(INSTANCE, record=record)) is State.STARTING
    refused = checked(record, WISH, INSTANCE.handle, False, "connection refused", at(101))
    status = status_of(INSTANCE, record=refused)
    assert (state_of(status), status.ready, status.message) == (State.STARTING, False, "connection refused")
    status = status_of(INSTANCE, record=checked(refused, WISH, INSTANCE.handle, True, "HTTP 200 from /", at(102)))
    assert (state_of(status), status.ready, status.reason) == (State.RUNNING, True, "Ready")


def test_endpoints_bear_the_address_of_the_device_and_the_scheme_of_the_check() -> None:
    status = status_of(INSTANCE, record=running())
    assert [(e.name, e.host, e.port, e.scheme) for e in status.endpoints] == [
        ("http", "10.0.0.7", 31000, "http"),
        ("metrics", "10.0.0.7", 31001, "tcp"),
    ]


def test_a_backoff_tells_why_and_until_when() -> None:
    failure = Failure(Stage.START, "PortInUse", "port 80 is taken", last_lines=("x",))
    status = status_of(record=failed(prepared(Record("d1"), WISH), WISH, failure, at(100), 0.5))
    assert (state_of(status), status.reason, status.message) == (State.BACKOFF, "PortInUse", "port 80 is taken")
    assert status.next_try.seconds == int(at(101).wall)
    assert (status.attempts, list(status.last_lines)) == (1, ["x"])
    assert not status.endpoints


def test_nothing_is_told_of_an_end_that_is_not_understood_yet() -> None:
    gone = make_observed(phase=Phase.EXITED)
    assert wished_status(Case(WISH, (gone,), running()), Doing(), SETTING) is None


def test_nothing_is_told_of_an_adopted_instance_before_its_check_has_answered() -> None:
    assert wished_status(Case(WISH, (INSTANCE,), Record("d1")), Doing(), SETTING) is None


def test_what_runs_after_a_return_tells_what_failed_and_why() -> None:
    ready = checked(running(), WISH, INSTANCE.handle, True, "HTTP 200 from /", at(101))
    failure = Failure(Stage.RUN, "CrashLoop", "the instance ended with exit code 3", last_lines=("boom",))
    record = ready.with_course(Course(2, failure=failure, verdict=Verdict.FAILED))
    status = status_of(INSTANCE, record=record, wish=make_workload(2))
    assert (status.revision, state_of(status), status.ready) == (1, State.RUNNING, True)
    assert status.reason == "RolledBack"
    assert status.message == (
        "revision 2 was given up (CrashLoop: the instance ended with exit code 3); revision 1 was brought back"
    )
    assert list(status.last_lines) == ["boom"]


def test_only_the_last_twenty_lines_and_four_kilobytes_are_told() -> None:
    assert newest_lines([str(n) for n in range(30)]) == tuple(str(n) for n in range(10, 30))
    lines = newest_lines(["a" * 3000, "b" * 3000])
    assert sum(len(line) for line in lines) == 4096
    assert lines[-1] == "b" * 3000
    assert newest_lines(["ä" * 5000])[0].endswith("ä")
    assert newest_lines([]) == ()


class Log:
    """A journal and a clock that ticks with each look."""

    def __init__(self) -> None:
        self.told: list[tuple[State, bool, str]] = []
        self.changes = 0
        self._ticks = itertools.count(1)
        self.board = Board(self._journal, self._changed, lambda: Moment(0.0, float(next(self._ticks))))

    def _journal(self, status: InstanceStatus, occurred: float) -> None:
        self.told.append((state_of(status), status.ready, status.reason))

    def _changed(self) -> None:
        self.changes += 1

    def apply(self, state: State, reason: str = "", **fields: object) -> None:
        status = InstanceStatus(deployment_id="d1", revision=1, state=state_pb(state), reason=reason)
        for name, value in fields.items():
            setattr(status, name, value)
        self.board.apply(status)

    @property
    def shown(self) -> InstanceStatus:
        (status,) = self.board.statuses()
        return status


def test_since_changes_only_with_state_readiness_or_reason() -> None:
    log = Log()
    log.apply(State.FETCHING, fetched_bytes=1)
    since = log.shown.since.seconds
    log.apply(State.FETCHING, fetched_bytes=2)
    assert (log.shown.since.seconds, log.shown.fetched_bytes, log.changes) == (since, 2, 2)
    log.apply(State.STARTING)
    assert log.shown.since.seconds > since
    assert [state for state, _, _ in log.told] == [State.FETCHING, State.STARTING]


def test_the_same_status_again_is_no_change() -> None:
    log = Log()
    log.apply(State.STARTING)
    log.apply(State.STARTING)
    assert (log.changes, len(log.told)) == (1, 1)


def test_what_is_not_understood_is_not_ready_and_leaves_no_trace_if_it_was_nothing() -> None:
    log = Log()
    log.apply(State.RUNNING, "Ready", ready=True)
    since = log.shown.since
    log.board.hold("d1")
    assert (log.shown.ready, log.shown.reason) == (False, "NotObserved")
    log.apply(State.RUNNING, "Ready", ready=True)
    assert (log.shown.ready, log.shown.since) == (True, since)
    assert len(log.told) == 1


def test_what_is_shown_cannot_be_changed_from_outside() -> None:
    log = Log()
    log.apply(State.RUNNING, "Ready", ready=True)
    log.shown.ready = False
    assert log.shown.ready


def test_a_removed_deployment_is_told_once_and_shown_no_more() -> None:
    log = Log()
    log.apply(State.STOPPING)
    log.board.drop("d1")
    log.board.drop("d1")
    assert log.board.statuses() == []
    assert log.told[-1] == (State.STOPPED, False, "Removed")
    assert len(log.told) == 2


def test_a_stored_status_that_cannot_be_read_is_left_out() -> None:
    log = Log()
    log.board.remember("d1", b"\xff\xff\xff")
    assert log.board.statuses() == []


@pytest.mark.parametrize("state", list(State))
def test_every_state_says_what_may_follow_and_none_is_a_dead_end_within_itself(state: State) -> None:
    assert state in FOLLOWS[state]
    assert {State.STOPPING, State.STOPPED} <= FOLLOWS[state]


def test_a_failed_revision_never_runs_and_a_backoff_starts_before_it_runs() -> None:
    assert State.RUNNING not in FOLLOWS[State.FAILED]
    assert State.RUNNING not in FOLLOWS[State.BACKOFF]


def test_while_a_new_revision_starts_beside_the_old_one_the_endpoints_are_those_that_answer() -> None:
    old, new = make_workload(1), make_workload(2)
    serving = make_observed(1, 1, addresses=(("http", ("127.0.0.1", 31001)),))
    fresh = make_observed(2, 2, addresses=(("http", ("127.0.0.1", 31002)),))
    record = prepared(
        checked(started(Record("d1"), old, serving.handle, at(1)), old, serving.handle, True, "", at(1)), new
    )
    record = started(record, new, fresh.handle, at(2))
    starting = wished_status(Case(new, (fresh, serving), record), Doing(), Setting("edge", "", 2.0))
    assert starting is not None
    assert (starting.revision, starting.ready, [e.port for e in starting.endpoints]) == (2, False, [31001])
    assert starting.message == "revision 1 serves until this one is ready"
    record = checked(record, new, fresh.handle, True, "answers", at(3))
    ready = wished_status(Case(new, (fresh, serving), record), Doing(), Setting("edge", "", 3.0))
    assert ready is not None
    assert (ready.revision, ready.ready, [e.port for e in ready.endpoints]) == (2, True, [31002])


def test_an_old_revision_that_has_to_stop_first_is_told_with_the_reason() -> None:
    pinned = (Port("http", 8000, 8000),)
    old, new, serving = make_workload(1, ports=pinned), make_workload(2, ports=pinned), make_observed(1)
    record = prepared(
        checked(started(Record("d1"), old, serving.handle, at(1)), old, serving.handle, True, "", at(1)), new
    )
    status = wished_status(Case(new, (serving,), record), Doing(), Setting("edge", "", 2.0))
    assert status is not None
    assert status.message == "revision 1 is stopping to make room: both want port 8000 of the device"
