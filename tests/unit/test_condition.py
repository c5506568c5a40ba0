"""The state of a deployment rests on evidence."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.builds.model import BuildState
from controller.deployments.condition import condition
from controller.deployments.model import DeploymentState, LeftOut, Wish
from controller.devices.model import Presence
from controller.store.workloads import Placement
from tests.support.rows import ARTIFACT, build, deployment, instance, on, placement

BUILT = build(BuildState.SUCCEEDED)
STATES = ["PENDING", "FETCHING", "STARTING", "RUNNING", "STOPPING", "STOPPED", "FAILED", "BACKOFF"]


def test_ready_when_every_device_says_so() -> None:
    places = [placement(instance()), on("dev-2", placement(instance()))]
    assert condition(deployment(), BUILT, places).state is DeploymentState.READY


def test_progressing_while_one_of_two_devices_is_not_ready() -> None:
    places = [placement(instance()), on("dev-2", placement(instance("STARTING", ready=False)))]
    found = condition(deployment(), BUILT, places)
    assert found.state is DeploymentState.PROGRESSING
    assert found.message == "1 of 2 instances ready"


def test_an_instance_of_the_revision_before_does_not_make_the_present_one_ready() -> None:
    places = [placement(instance(revision=1), revision=2)]
    assert condition(deployment(revision=2), BUILT, places).state is DeploymentState.PROGRESSING


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, ""])
def test_an_instance_of_another_artifact_does_not_make_the_revision_ready(digest: str) -> None:
    found = condition(deployment(), BUILT, [placement(instance(digest=digest))])
    assert (found.state, found.message) == (DeploymentState.PROGRESSING, "0 of 1 instances ready")


def test_a_wish_that_the_device_cannot_read_fails_the_deployment() -> None:
    row = instance("FAILED", ready=False, reason="InvalidWorkload", digest="")
    found = condition(deployment(), BUILT, [placement(row)])
    assert (found.state, found.reason) == (DeploymentState.FAILED, "InvalidWorkload")


def test_what_holds_up_an_instance_is_the_reason_of_its_deployment() -> None:
    held_up = placement(instance("PENDING", ready=False, reason="PodmanUnavailable"))
    found = condition(deployment(), BUILT, [held_up])
    assert (found.state, found.reason) == (DeploymentState.PENDING, "PodmanUnavailable")
    assert found.message == "edge: says the device"
    found = condition(deployment(), BUILT, [on("dev-2", placement(instance())), held_up])
    assert (found.state, found.reason) == (DeploymentState.DEGRADED, "PodmanUnavailable")
    starting = on("dev-3", placement(instance("STARTING", ready=False)))
    assert condition(deployment(), BUILT, [starting, held_up]).state is DeploymentState.PROGRESSING
    queued = placement(instance("PENDING", ready=False, reason="Queued"))
    assert condition(deployment(), BUILT, [queued]).reason == "Progressing"


def test_failed_build_is_named_with_its_target_and_reason() -> None:
    failed = build(BuildState.SUCCEEDED, BuildState.FAILED, message="no package x")
    found = condition(deployment(), failed, [])
    assert (found.state, found.reason) == (DeploymentState.FAILED, "BuildFailed")
    assert "no package x" in found.message


def test_nothing_is_concluded_before_the_build_has_ended() -> None:
    going = build(BuildState.SUCCEEDED, BuildState.PUSHING)
    assert condition(deployment(), going, [placement(instance())]).state is DeploymentState.BUILDING


def test_a_build_that_waits_says_for_what() -> None:
    waiting = build(BuildState.QUEUED, message="the registry does not answer")
    found = condition(deployment(), waiting, [])
    assert (found.state, found.reason) == (DeploymentState.BUILDING, "PackageNotFound")


def test_without_a_matching_device_it_waits_for_one() -> None:
    found = condition(deployment(), BUILT, [])
    assert (found.state, found.reason) == (DeploymentState.PENDING, "NoMatchingDevice")


@pytest.mark.parametrize(
    ("presence", "reason"), [(Presence.OFFLINE, "DeviceOffline"), (Presence.UNKNOWN, "DeviceUnknown")]
)
def test_ready_instance_on_a_device_out_of_sight_is_degraded(presence: Presence, reason: str) -> None:
    found = condition(deployment(), BUILT, [placement(instance(), presence)])
    assert (found.state, found.reason) == (DeploymentState.DEGRADED, reason)


def test_new_deployment_for_an_offline_device_waits_for_it_by_name() -> None:
    found = condition(deployment(), BUILT, [placement(None, Presence.OFFLINE)])
    assert (found.state, found.reason) == (DeploymentState.PENDING, "DeviceOffline")
    assert "edge" in found.message


def test_crashing_instance_degrades_with_its_own_reason() -> None:
    row = instance("BACKOFF", ready=False, reason="CrashLoop")
    found = condition(deployment(), BUILT, [placement(row)])
    assert (found.state, found.reason) == (DeploymentState.DEGRADED, "CrashLoop")


def test_instance_that_went_back_to_the_revision_before_fails_the_present_one() -> None:
    row = instance(revision=1, reason="RolledBack")
    found = condition(deployment(revision=2), BUILT, [placement(row, revision=2)])
    assert (found.state, found.reason) == (DeploymentState.FAILED, "RolledBack")


def test_stopped_only_when_each_device_says_so() -> None:
    stopped = placement(instance("STOPPED", ready=False), wish=Wish.STOP)
    running = on("dev-2", placement(instance(), wish=Wish.STOP))
    assert condition(deployment(Wish.STOP), BUILT, [stopped, running]).state is DeploymentState.STOPPING
    assert condition(deployment(Wish.STOP), BUILT, [stopped]).state is DeploymentState.STOPPED


def test_deleted_only_when_no_device_has_it() -> None:
    left = placement(instance("STOPPING", ready=False), Presence.OFFLINE, wish=Wish.DELETE)
    found = condition(deployment(Wish.DELETE), BUILT, [left])
    assert (found.state, found.reason) == (DeploymentState.DELETING, "WaitingForDevice")
    assert condition(deployment(Wish.DELETE), BUILT, []).state is DeploymentState.DELETED


@st.composite
def placements(draw: st.DrawFn) -> list[Placement]:
    def one(number: int) -> Placement:
        row = None
        if draw(st.booleans()):
            state = draw(st.sampled_from(STATES))
            digest = draw(st.sampled_from([ARTIFACT.digest, "sha256:" + "0" * 64, ""]))
            answers = state == "RUNNING" and draw(st.booleans())
            row = instance(state, ready=answers, revision=draw(st.integers(1, 3)), digest=digest)
        return on(f"dev-{number}", placement(row, draw(st.sampled_from(list(Presence))), revision=2))

    return [one(number) for number in range(draw(st.integers(0, 4)))]


@given(placements())
def test_ready_is_never_claimed_without_evidence_from_every_device(places: list[Placement]) -> None:
    found = condition(deployment(revision=2), BUILT, places)
    evidence = [
        place.presence == Presence.ONLINE
        and place.instance is not None
        and place.instance.ready
        and place.instance.revision == 2
        and place.instance.artifact_digest == ARTIFACT.digest
        for place in places
    ]
    assert (found.state is DeploymentState.READY) == (bool(places) and all(evidence))


def test_a_device_that_was_never_there_does_not_hide_those_that_answer() -> None:
    missing = on("dev-2", placement(None, Presence.OFFLINE))
    answering = condition(deployment(), BUILT, [placement(instance()), missing])
    assert (answering.state, answering.reason) == (DeploymentState.DEGRADED, "DeviceOffline")
    starting = condition(deployment(), BUILT, [placement(instance("STARTING", ready=False)), missing])
    assert starting.state is DeploymentState.PROGRESSING


def test_a_service_that_ended_by_itself_is_no_progress() -> None:
    row = instance("STOPPED", ready=False, reason="Completed")
    found = condition(deployment(), BUILT, [placement(row)])
    assert (found.state, found.reason) == (DeploymentState.DEGRADED, "Completed")


def test_a_stop_of_the_revision_before_is_no_trouble_of_the_present_one() -> None:
    row = instance("STOPPED", ready=False, reason="StoppedByUser")
    assert condition(deployment(revision=2), BUILT, [placement(row, revision=2)]).state is DeploymentState.PROGRESSING


def test_a_cancelled_build_fails_the_deployment_with_its_own_reason() -> None:
    found = condition(deployment(), build(BuildState.SUCCEEDED, BuildState.CANCELLED), [])
    assert (found.state, found.reason) == (DeploymentState.FAILED, "BuildCancelled")
    assert found.message == "build b-1 was cancelled; deploy again"


def test_a_device_that_is_left_out_is_seen_in_the_condition() -> None:
    left = replace(deployment(), left_out=(LeftOut("edge", "DeviceTooSmall", "it has 2 cores"),))
    found = condition(left, BUILT, [])
    assert (found.state, found.reason) == (DeploymentState.PENDING, "DeviceTooSmall")
    assert found.message == "no device can run it: edge (it has 2 cores)"
    found = condition(left, BUILT, [placement(instance())])
    assert found.state is DeploymentState.READY
    assert found.message == "1 of 1 instances ready; without edge (it has 2 cores)"


def test_fewer_devices_than_a_target_asks_for_are_not_ready() -> None:
    short = LeftOut("targets[0]", "NotEnoughDevices", "asks for 2 devices, and 1 can run it")
    found = condition(replace(deployment(), left_out=(short,)), BUILT, [placement(instance())])
    assert (found.state, found.reason) == (DeploymentState.DEGRADED, "NotEnoughDevices")
    assert found.message == "1 of 1 instances ready; without targets[0] (asks for 2 devices, and 1 can run it)"
