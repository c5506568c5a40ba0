"""What the agent does next, from what is wished, observed and remembered."""

from dataclasses import replace
from typing import Any

import pytest

from edge_agent.runtime.backend import Handle, Observed, Phase
from edge_agent.runtime.model import (
    Artifact,
    ArtifactKind,
    Check,
    Desired,
    Mount,
    Port,
    RestartPolicy,
    TcpProbe,
    UpdateStrategy,
    Volume,
    Workload,
)
from edge_agent.runtime.plan import (
    DEFAULT_GRACE,
    Account,
    Forget,
    GiveUp,
    Prepare,
    Recover,
    Remove,
    Start,
    Step,
    Stop,
    due,
    plan,
)
from edge_agent.runtime.record import (
    STABLE_AFTER,
    Course,
    Failure,
    Health,
    Record,
    Stage,
    Verdict,
    checked,
    failed,
    lifeless,
    lived,
    overdue,
    prepared,
    retired,
    started,
)
from edge_agent.runtime.updating import obstacle
from tests.support.workloads import at, digest_of, make_observed, make_workload

NOW = 100.0


def steps(
    *wishes: Workload,
    observed: tuple[Observed, ...] = (),
    record: Record | None = None,
    stopped: bool = False,
    now: float = NOW,
    held: frozenset[str] = frozenset(),
) -> list[Step]:
    desired = Desired(1, wishes, frozenset({"d1"}) if stopped else frozenset())
    return plan(desired, observed, {"d1": record} if record else {}, now, held)


def running(workload: Workload, handle: Handle, since: float = NOW) -> Record:
    """A record of a workload that was prepared and started."""
    return started(prepared(Record("d1"), workload), workload, handle, at(since))


def ready(workload: Workload, handle: Handle, since: float = NOW) -> Record:
    return checked(running(workload, handle, since), workload, handle, True, "answers", at(since))


def test_a_new_wish_is_fetched_first_and_started_once_it_is_here() -> None:
    wish = make_workload()
    assert steps(wish) == [Prepare("d1", wish)]
    assert steps(wish, record=prepared(Record("d1"), wish)) == [Start("d1", wish)]


def test_a_ready_instance_of_the_wish_needs_nothing() -> None:
    wish, instance = make_workload(), make_observed()
    assert steps(wish, observed=(instance,), record=ready(wish, instance.handle)) == []


def test_a_running_instance_of_the_wish_is_adopted_without_fetching() -> None:
    assert steps(make_workload(), observed=(make_observed(),)) == []


def test_the_old_revision_runs_on_while_the_new_one_is_fetched() -> None:
    old, new, instance = make_workload(1), make_workload(2), make_observed(1)
    record = ready(old, instance.handle)
    assert steps(new, observed=(instance,), record=record) == [Prepare("d1", new)]


STOP_FIRST = UpdateStrategy.STOP_FIRST


def test_an_update_that_stops_first_does_so_only_when_the_new_one_is_here() -> None:
    old, new, instance = make_workload(1), make_workload(2, update=STOP_FIRST), make_observed(1)
    record = prepared(ready(old, instance.handle), new)
    assert steps(new, observed=(instance,), record=record) == [Stop("d1", instance, old.stop_grace)]
    gone = make_observed(1, phase=Phase.EXITED)
    record = retired(record, 1, instance.handle)
    assert steps(new, observed=(gone,), record=record) == [Start("d1", new)]


def test_an_update_that_can_starts_first_and_stops_the_old_revision_once_the_new_one_is_ready() -> None:
    old, new, serving, fresh = make_workload(1), make_workload(2), make_observed(1), make_observed(2, 2)
    record = prepared(ready(old, serving.handle), new)
    assert steps(new, observed=(serving,), record=record) == [Start("d1", new)]
    record = started(record, new, fresh.handle, at(NOW))
    assert steps(new, observed=(serving, fresh), record=record) == []
    record = checked(record, new, fresh.handle, True, "answers", at(NOW))
    assert steps(new, observed=(serving, fresh), record=record) == [Stop("d1", serving, old.stop_grace)]


def test_a_new_revision_that_never_becomes_ready_beside_the_old_one_is_given_up_and_the_old_one_stays() -> None:
    old, new, serving, fresh = make_workload(1), make_workload(2), make_observed(1), make_observed(2, 2)
    record = started(prepared(ready(old, serving.handle), new), new, fresh.handle, at(NOW))
    late = NOW + new.readiness.deadline
    assert steps(new, observed=(serving, fresh), record=record, now=late) == [GiveUp("d1", new, fresh)]
    record = overdue(record, new, fresh.handle, (), at(late), 0.5)
    assert steps(new, observed=(serving, fresh), record=record, now=late) == [Stop("d1", fresh, new.stop_grace)]
    assert steps(new, observed=(serving,), record=record, now=late) == []


def test_a_newer_wish_ends_what_an_older_one_has_started_and_leaves_what_serves() -> None:
    old, newer = make_workload(1), make_workload(3)
    serving, interrupted = make_observed(1), make_observed(2, 2)
    record = started(prepared(ready(old, serving.handle), make_workload(2)), make_workload(2), Handle(1, "i2"), at(NOW))
    record = prepared(record, newer)
    assert steps(newer, observed=(serving, interrupted), record=record) == [Stop("d1", interrupted, DEFAULT_GRACE)]
    assert steps(newer, observed=(serving,), record=record) == [Start("d1", newer)]


def test_what_has_completed_leaves_nothing_of_the_revision_before() -> None:
    old, new, serving = make_workload(1), make_workload(2, restart=RestartPolicy.NEVER), make_observed(1)
    record = ready(old, serving.handle).with_course(Course(2, prepared=True, verdict=Verdict.COMPLETED))
    assert steps(new, observed=(serving,), record=record) == [Stop("d1", serving, old.stop_grace)]


PINNED = (Port("http", 8000, 8000),)
VOLUME = (Volume("data", "/data"),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"update": STOP_FIRST}, "update strategy"),
        ({"ports": PINNED}, "port 8000"),
        ({"volumes": VOLUME}, "data"),
        ({"mounts": (Mount("/srv", "/srv", read_only=False),)}, "/srv"),
        ({"devices": ("nvidia.com/gpu=0",)}, "nvidia.com/gpu=0"),
    ],
)
def test_what_two_revisions_cannot_share_is_named_as_the_reason_to_stop_first(change: Any, said: str) -> None:
    assert said in obstacle(make_workload(2, **change), make_workload(1, **change))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"volumes": (Volume("data", "/data", read_only=True),)},
        {"mounts": (Mount("/srv", "/srv"),)},
        {"ports": PINNED, "update": UpdateStrategy.START_FIRST},
    ],
)
def test_two_revisions_that_share_nothing_that_matters_run_side_by_side(change: Any) -> None:
    assert obstacle(make_workload(2, **change), make_workload(1, **change)) == ""


def test_bundles_that_listen_at_one_port_are_updated_one_after_the_other_unless_asked_otherwise() -> None:
    artifact = Artifact("registry.example/alice/digits", digest_of(1), "linux/amd64", ArtifactKind.BUNDLE)
    old, new = (make_workload(revision, artifact=artifact) for revision in (1, 2))
    assert obstacle(new, old) == "both want port 8000 of the device"
    assert obstacle(replace(new, update=UpdateStrategy.START_FIRST), old) == ""
    assert obstacle(replace(new, ports=(Port("http", 8001),)), old) == ""


def test_an_instance_that_fails_its_liveness_check_too_often_is_given_up_and_started_again_after_a_while() -> None:
    wish = make_workload(liveness=Check(TcpProbe("http"), failure_threshold=2))
    instance = make_observed(1)
    record = lived(ready(wish, instance.handle), instance.handle, False, "connection refused")
    assert steps(wish, observed=(instance,), record=record) == []
    record = lived(record, instance.handle, False, "connection refused")
    assert steps(wish, observed=(instance,), record=record) == [GiveUp("d1", wish, instance, lifeless=True)]
    after = lifeless(record, wish, instance.handle, (), at(NOW), 0.5)
    failure = after.course(1).failure
    assert failure is not None
    assert (failure.reason, after.course(1).verdict) == ("LivenessFailed", Verdict.OPEN)
    assert "connection refused" in failure.message


def test_an_answer_in_between_makes_up_for_failed_liveness_checks() -> None:
    wish = make_workload(liveness=Check(TcpProbe("http"), failure_threshold=2))
    instance = make_observed(1)
    record = ready(wish, instance.handle)
    for ok in (False, True, False):
        record = lived(record, instance.handle, ok, "")
    assert steps(wish, observed=(instance,), record=record) == []


def test_the_old_instance_is_removed_only_when_the_new_one_is_ready() -> None:
    new, old_instance, instance = make_workload(2), make_observed(1, 1, Phase.EXITED), make_observed(2, 2)
    observed = (old_instance, instance)
    assert steps(new, observed=observed, record=running(new, instance.handle)) == []
    assert steps(new, observed=observed, record=ready(new, instance.handle)) == [Remove("d1", old_instance)]


def test_of_what_has_ended_the_oldest_is_removed_first() -> None:
    wish, instance = make_workload(2), make_observed(2, 9)
    older, crashed = make_observed(1, 1, Phase.EXITED), make_observed(2, 2, Phase.EXITED)
    record = ready(wish, crashed.handle)
    noted = record.with_course(replace(record.course(2), settled=crashed.handle))
    gone = (crashed, older)
    assert steps(wish, observed=gone, record=noted) == [Remove("d1", older)]
    assert steps(wish, observed=(crashed,), record=noted) == [Remove("d1", crashed)]
    assert steps(wish, observed=(*gone, instance), record=ready(wish, instance.handle)) == [Remove("d1", older)]
    assert steps(wish, observed=gone, record=noted, stopped=True) == [Remove("d1", older)]
    assert steps(observed=gone, record=noted) == [Remove("d1", older)]


def test_an_instance_that_ended_by_itself_is_accounted_for_before_it_is_replaced() -> None:
    wish, gone = make_workload(), make_observed(phase=Phase.EXITED)
    record = ready(wish, gone.handle)
    assert steps(wish, observed=(gone,), record=record) == [Account("d1", wish, gone)]
    noted = record.with_course(replace(record.course(1), settled=gone.handle))
    assert steps(wish, observed=(gone,), record=noted) == [Remove("d1", gone)]


def test_nothing_is_tried_before_the_backoff_has_passed() -> None:
    wish = make_workload()
    failure = Failure(Stage.START, "PortInUse", "port 80 is taken")
    record = failed(prepared(Record("d1"), wish), wish, failure, at(NOW), 0.5)
    assert steps(wish, record=record, now=NOW + 0.9) == []
    assert steps(wish, record=record, now=NOW + 1.0) == [Start("d1", wish)]
    assert due(Desired(1, (wish,)), (), {"d1": record}, NOW) == NOW + 1.0


def test_an_instance_that_is_not_ready_by_its_deadline_is_given_up() -> None:
    wish, instance = make_workload(), make_observed()
    record = running(wish, instance.handle)
    deadline = NOW + wish.readiness.deadline
    assert steps(wish, observed=(instance,), record=record, now=deadline - 0.1) == []
    assert due(Desired(1, (wish,)), (instance,), {"d1": record}, NOW) == deadline
    assert steps(wish, observed=(instance,), record=record, now=deadline) == [GiveUp("d1", wish, instance)]


def test_an_instance_that_was_ready_has_no_deadline() -> None:
    wish, instance = make_workload(), make_observed()
    record = ready(wish, instance.handle)
    assert record.healths
    lost = record.with_health(replace(record.healths[0], ready=False))
    assert steps(wish, observed=(instance,), record=lost, now=NOW + 1000) == []


def test_a_revision_that_was_given_up_makes_room_for_the_one_before() -> None:
    old, new = make_workload(1), make_workload(2)
    record = ready(old, Handle(1, "i1")).with_course(Course(2, prepared=True, verdict=Verdict.FAILED))
    failing = make_observed(2, 2)
    assert steps(new, observed=(failing,), record=record) == [Stop("d1", failing, new.stop_grace)]
    assert steps(new, record=record) == [Start("d1", old)]


def test_a_revision_that_was_given_up_is_not_tried_again() -> None:
    old, new, instance = make_workload(1), make_workload(2), make_observed(1)
    record = ready(old, instance.handle).with_course(Course(2, prepared=True, verdict=Verdict.FAILED))
    assert steps(new, observed=(instance,), record=record, now=NOW + 1e6) == []


def test_a_newer_revision_is_tried_after_one_was_given_up() -> None:
    old, newer, instance = make_workload(1), make_workload(3), make_observed(1)
    record = ready(old, instance.handle).with_course(Course(2, verdict=Verdict.FAILED))
    assert steps(newer, observed=(instance,), record=record) == [Prepare("d1", newer)]


def test_a_final_failure_without_anything_to_return_to_ends_all_tries() -> None:
    wish = make_workload()
    failure = Failure(Stage.FETCH, "ImageNotFound", "no such image", final=True)
    record = failed(Record("d1"), wish, failure, at(NOW), 0.5)
    assert steps(wish, record=record, now=NOW + 1e6) == []


def test_the_revision_before_is_served_while_the_wished_one_cannot_be_fetched() -> None:
    old, new = make_workload(1), make_workload(2)
    record = ready(old, Handle(1, "i1"))
    failure = Failure(Stage.FETCH, "ImagePullFailed", "no network")
    record = failed(record, new, failure, at(NOW), 0.5)
    assert steps(new, record=record) == [Start("d1", old)]


def test_after_a_power_cut_what_bridges_the_gap_is_prepared_before_the_new_wish() -> None:
    old, new = make_workload(1), make_workload(2)
    record = ready(old, Handle(1, "i1"))
    rebooted = record.with_course(replace(record.course(1), prepared=False))
    gone = make_observed(1, phase=Phase.EXITED, exit_code=None)
    found = steps(new, observed=(gone,), record=rebooted)
    assert found == [Prepare("d1", old), Account("d1", old, gone)]


def test_a_completed_workload_is_not_started_again() -> None:
    wish, gone = make_workload(restart=RestartPolicy.NEVER), make_observed(phase=Phase.EXITED, exit_code=0)
    record = Record("d1").with_course(Course(1, verdict=Verdict.COMPLETED, settled=gone.handle))
    assert steps(wish, observed=(gone,), record=record) == []


def test_a_stopped_deployment_is_stopped_then_removed_then_forgotten() -> None:
    wish, instance = make_workload(), make_observed()
    record = ready(wish, instance.handle)
    assert steps(wish, observed=(instance,), record=record, stopped=True) == [Stop("d1", instance, wish.stop_grace)]
    gone = make_observed(phase=Phase.EXITED)
    assert steps(wish, observed=(gone,), record=record, stopped=True) == [Remove("d1", gone)]
    assert steps(wish, record=record, stopped=True) == [Forget("d1")]
    assert steps(wish, record=Record("d1"), stopped=True) == []


def test_what_is_kept_for_a_stopped_deployment_goes_with_its_wish() -> None:
    assert steps(make_workload(), stopped=True) == [Forget("d1")], "also where a database was lost"
    assert steps(make_workload(), record=Record("d1"), stopped=True) == []
    assert steps(record=Record("d1")) == [Forget("d1", gone=True)]


def test_an_instance_that_is_not_wished_for_is_stopped_and_removed() -> None:
    instance = make_observed()
    assert steps(observed=(instance,)) == [Stop("d1", instance, DEFAULT_GRACE)]
    gone = make_observed(phase=Phase.EXITED)
    assert steps(observed=(gone,)) == [Remove("d1", gone)]


def test_of_two_running_instances_the_newest_stays() -> None:
    wish, older, newer = make_workload(), make_observed(number=1), make_observed(number=2)
    assert steps(wish, observed=(older, newer)) == [Stop("d1", older, wish.stop_grace)]


def test_an_instance_whose_end_was_decided_is_stopped_after_a_crash_of_the_agent() -> None:
    wish, instance = make_workload(), make_observed()
    record = prepared(retired(Record("d1"), 1, instance.handle), wish)
    assert steps(wish, observed=(instance,), record=record) == [Stop("d1", instance, wish.stop_grace)]


def test_an_instance_that_was_created_and_never_ran_is_replaced() -> None:
    wish, created = make_workload(), make_observed(phase=Phase.CREATED, started_at=0.0)
    record = prepared(Record("d1"), wish)
    assert steps(wish, observed=(created,), record=record) == [Remove("d1", created)]


def test_failures_are_forgotten_after_a_long_time_ready() -> None:
    wish, instance = make_workload(), make_observed()
    record = ready(wish, instance.handle)
    record = record.with_course(replace(record.course(1), attempts=2))
    assert steps(wish, observed=(instance,), record=record, now=NOW + STABLE_AFTER - 1) == []
    assert steps(wish, observed=(instance,), record=record, now=NOW + STABLE_AFTER) == [Recover("d1", 1)]
    assert due(Desired(1, (wish,)), (instance,), {"d1": record}, NOW + 50) == NOW + STABLE_AFTER


def test_a_held_deployment_is_left_alone() -> None:
    instance = make_observed()
    assert steps(observed=(instance,), held=frozenset({"d1"})) == []


def test_one_deployment_does_not_wait_for_another() -> None:
    first, second = make_workload(deployment_id="d1"), make_workload(deployment_id="d2")
    record = prepared(Record("d1"), first)
    assert steps(first, second, record=record) == [Start("d1", first), Prepare("d2", second)]


def test_the_same_revision_with_another_digest_is_another_instance() -> None:
    wish, stranger = make_workload(), make_observed(artifact_digest="sha256:other")
    record = prepared(Record("d1"), wish)
    assert steps(wish, observed=(stranger,), record=record) == [Stop("d1", stranger, DEFAULT_GRACE)]


def test_health_of_another_instance_says_nothing() -> None:
    wish, instance = make_workload(), make_observed(number=2)
    record = Record("d1", healths=(Health(Handle(1, "i1"), 0.0),))
    assert steps(wish, observed=(instance,), record=record, now=1e6) == []
