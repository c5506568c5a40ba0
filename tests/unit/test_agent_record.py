"""What is remembered of a deployment, and how each thing that happens changes it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runtime.backend import INSTANCE_DAMAGED, Handle, Phase
from edge_agent.runtime.model import Check, RestartPolicy, TcpProbe
from edge_agent.runtime.record import (
    BACKOFF_CAP,
    READINESS_DEADLINE,
    Course,
    Failure,
    Record,
    Stage,
    Verdict,
    backoff,
    checked,
    describe_exit,
    ended,
    failed,
    overdue,
    prepared,
    recovered,
    retired,
    started,
    unprepared,
    watched,
)
from edge_agent.runtime.record_codec import UnreadableRecord, decode, encode
from tests.support.workloads import at, make_observed, make_workload

WISH = make_workload()
HANDLE = Handle(1, "i1")
CRASH = Failure(Stage.RUN, "Exited", "the instance ended with exit code 1")
PULL = Failure(Stage.FETCH, "ImagePullFailed", "no network")


def proven(revision: int = 1) -> Record:
    workload = make_workload(revision)
    record = started(prepared(Record("d1"), workload), workload, HANDLE, at(0))
    return checked(record, workload, HANDLE, True, "answers", at(1))


def test_the_backoff_doubles_up_to_its_cap() -> None:
    assert [backoff(n, 0.5) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert backoff(20, 0.5) == BACKOFF_CAP


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_backoff_is_never_longer_than_its_cap_nor_shorter_than_half_a_second(attempts: int, jitter: float) -> None:
    assert 0.5 <= backoff(attempts, jitter) <= BACKOFF_CAP


def test_a_failure_is_tried_again_later_by_both_clocks() -> None:
    course = failed(Record("d1"), WISH, CRASH, at(10), 0.5).course(1)
    assert (course.attempts, course.next_try, course.next_try_at) == (1, 11, at(11).wall)
    assert course.verdict is Verdict.OPEN


def test_a_first_revision_is_never_given_up_however_often_it_crashes() -> None:
    record = Record("d1")
    for _ in range(50):
        record = failed(record, WISH, CRASH, at(10), 0.5)
    assert record.course(1).verdict is Verdict.OPEN
    assert record.course(1).attempts == 50


def test_a_new_revision_is_given_up_at_its_third_crash_when_another_was_ready() -> None:
    new = make_workload(2)
    once = failed(proven(), new, CRASH, at(10), 0.5)
    twice = failed(once, new, CRASH, at(10), 0.5)
    thrice = failed(twice, new, CRASH, at(10), 0.5)
    assert [r.course(2).verdict for r in (once, twice, thrice)] == [Verdict.OPEN, Verdict.OPEN, Verdict.FAILED]


def test_a_new_revision_that_cannot_be_fetched_now_is_never_given_up() -> None:
    record = proven()
    for _ in range(10):
        record = failed(record, make_workload(2), PULL, at(10), 0.5)
    assert record.course(2).verdict is Verdict.OPEN


def test_a_revision_that_was_ready_once_is_not_given_up_for_an_older_one() -> None:
    record, new = proven(), make_workload(2)
    record = started(prepared(record, new), new, Handle(1, "i2"), at(5))
    record = checked(record, new, Handle(1, "i2"), True, "answers", at(6))
    assert record.fallback == new
    assert record.previous == WISH
    for _ in range(5):
        record = failed(record, new, CRASH, at(10), 0.5)
    assert record.course(2).verdict is Verdict.OPEN


def test_a_missed_deadline_gives_a_new_revision_up_at_once() -> None:
    record = overdue(proven(), make_workload(2), Handle(1, "i2"), ("last words",), at(10), 0.5)
    failure = record.course(2).failure
    assert record.course(2).verdict is Verdict.FAILED
    assert record.course(2).settled == Handle(1, "i2")
    assert failure is not None
    assert (failure.reason, failure.last_lines) == (READINESS_DEADLINE, ("last words",))


def test_fetching_at_last_makes_good_its_own_failures_only() -> None:
    record = prepared(failed(Record("d1"), WISH, PULL, at(10), 0.5), WISH)
    assert (record.course(1).attempts, record.course(1).failure, record.course(1).next_try) == (0, None, 0)
    record = prepared(failed(Record("d1"), WISH, CRASH, at(10), 0.5), WISH)
    assert (record.course(1).attempts, record.course(1).failure) == (1, CRASH)
    assert not unprepared(record, WISH).course(1).prepared


@pytest.mark.parametrize(
    ("policy", "code", "verdict", "reason"),
    [
        (RestartPolicy.ALWAYS, 0, Verdict.OPEN, "Exited"),
        (RestartPolicy.ALWAYS, 1, Verdict.OPEN, "Exited"),
        (RestartPolicy.ON_FAILURE, 0, Verdict.COMPLETED, None),
        (RestartPolicy.ON_FAILURE, 1, Verdict.OPEN, "Exited"),
        (RestartPolicy.ON_FAILURE, None, Verdict.OPEN, "Interrupted"),
        (RestartPolicy.NEVER, 0, Verdict.COMPLETED, None),
        (RestartPolicy.NEVER, 1, Verdict.FAILED, "Exited"),
        (RestartPolicy.NEVER, None, Verdict.FAILED, "Interrupted"),
    ],
)
def test_an_end_is_judged_by_exit_code_and_restart_policy(
    policy: RestartPolicy, code: int | None, verdict: Verdict, reason: str | None
) -> None:
    gone = make_observed(phase=Phase.EXITED, exit_code=code)
    course = ended(Record("d1"), make_workload(restart=policy), gone, ("bye",), at(10), 0.5).course(1)
    assert course.verdict is verdict
    assert course.settled == gone.handle
    assert course.exit_code == code
    assert (course.failure.reason if course.failure else None) == reason


def test_an_instance_whose_storage_is_damaged_says_so_before_it_is_made_anew() -> None:
    gone = make_observed(phase=Phase.EXITED, exit_code=None, exit_reason=INSTANCE_DAMAGED)
    course = ended(Record("d1"), WISH, gone, (), at(10), 0.5).course(1)
    assert course.failure is not None
    assert course.failure.reason == INSTANCE_DAMAGED
    assert course.next_try > 10


def test_the_second_crash_in_a_row_is_a_crash_loop() -> None:
    gone = make_observed(phase=Phase.EXITED, started_at=10.0, finished_at=10.4, exit_code=137)
    once = ended(Record("d1"), WISH, gone, (), at(10), 0.5)
    twice = ended(once, WISH, gone, (), at(12), 0.5)
    failure = twice.course(1).failure
    assert failure is not None
    assert failure.reason == "CrashLoop"
    assert failure.message == "the instance ended with exit code 137 (SIGKILL) after 0.4 s"


def test_what_was_cut_off_is_started_again_without_delay_but_not_for_ever() -> None:
    gone = make_observed(phase=Phase.EXITED, exit_code=None)
    once = ended(Record("d1"), WISH, gone, (), at(10), 0.5)
    assert once.course(1).next_try == 10
    assert ended(once, WISH, gone, (), at(10), 0.5).course(1).next_try == 12


def test_an_end_that_the_agent_brought_about_is_no_failure() -> None:
    course = retired(Record("d1"), 1, HANDLE).course(1)
    assert (course.settled, course.attempts, course.failure) == (HANDLE, 0, None)


def test_a_ready_instance_survives_fewer_misses_than_its_threshold() -> None:
    wish = make_workload(readiness=Check(TcpProbe("http"), failure_threshold=3))
    record = proven()
    ready = []
    for _ in range(3):
        record = checked(record, wish, HANDLE, False, "connection refused", at(20))
        assert record.healths
        ready.append(record.healths[0].ready)
    assert ready == [True, True, False]
    assert record.healths
    assert record.healths[0].ever_ready
    again = checked(record, wish, HANDLE, True, "answers", at(30))
    assert again.healths
    assert (again.healths[0].ready, again.healths[0].failures, again.healths[0].ready_since) == (True, 0, 30)


def test_an_answer_of_an_instance_that_is_gone_changes_nothing() -> None:
    record = proven()
    assert checked(record, WISH, Handle(1, "other"), False, "", at(9)) is record


def test_an_adopted_instance_that_was_ready_before_has_no_deadline() -> None:
    known, unknown = make_observed(), make_observed(number=2)
    assert known.handle == HANDLE
    for observed, ever_ready in ((known, True), (unknown, False)):
        health = watched(proven(), observed, at(50)).healths[0]
        assert health is not None
        assert (health.since, health.ever_ready, health.ready, health.answered) == (50, ever_ready, False, False)


def test_a_long_time_ready_makes_good_all_failures() -> None:
    record = failed(proven(), WISH, CRASH, at(10), 0.5)
    assert (recovered(record, 1).course(1).attempts, recovered(record, 1).course(1).failure) == (0, None)


def test_the_first_start_is_no_restart() -> None:
    record = started(Record("d1"), WISH, HANDLE, at(0))
    assert record.course(1).restarts == 0
    assert started(record, WISH, HANDLE, at(0)).course(1).restarts == 1


def test_many_revisions_leave_a_short_record_that_still_knows_the_fallback() -> None:
    record = proven(1)
    for revision in range(2, 40):
        record = record.with_course(Course(revision))
    assert len(record.courses) <= 6
    assert record.course(1).proven == HANDLE
    assert record.course(39) in record.courses


@pytest.mark.parametrize(
    ("code", "text"), [(0, "0"), (3, "3"), (137, "137 (SIGKILL)"), (143, "143 (SIGTERM)"), (255, "255")]
)
def test_an_exit_code_is_told_with_its_signal(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_a_record_is_the_same_after_a_restart_but_for_what_must_be_checked_again() -> None:
    failure = Failure(Stage.RUN, "CrashLoop", "ended", last_lines=("a", "b"))
    record = failed(prepared(proven(), make_workload(2)), make_workload(2), failure, at(10), 0.5)
    back = decode("d1", encode(record), at(10))
    unprepared_courses = tuple(replace(course, prepared=False) for course in record.courses)
    assert back == replace(record, courses=unprepared_courses)
    assert back.healths == ()


@pytest.mark.parametrize(("attempts", "longest"), [(1, 1.2), (3, 4.8), (20, BACKOFF_CAP)])
def test_a_clock_that_jumped_makes_no_delay_longer_than_it_was(attempts: int, longest: float) -> None:
    record = Record("d1")
    for _ in range(attempts):
        record = failed(record, WISH, CRASH, at(1_000_000), 0.5)
    body = encode(record)
    course = decode("d1", body, at(0)).course(1)
    assert course.next_try == pytest.approx(longest)
    assert course.next_try_at == at(longest).wall
    assert decode("d1", body, at(2_000_000)).course(1).next_try == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[]", b'{"version": 99}', b'{"version": 1}', b'{"version": 1, "courses": [1]}', b"\xff\xfe"],
)
def test_a_record_that_makes_no_sense_is_refused_by_one_error(body: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode("d1", body, at(0))
