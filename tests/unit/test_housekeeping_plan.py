"""What housekeeping lets go, and above all what it never does."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.builds.uploads import Content
from controller.events.model import Project
from controller.housekeeping.plan import (
    DAY,
    Artifact,
    BuildRecord,
    CachedLayers,
    DeploymentUse,
    Policy,
    Removal,
    Uses,
    deletable,
    plan_builds,
    plan_layers,
    plan_logs,
    plan_room,
    plan_uploads,
    plan_volumes,
)
from controller.volumes.model import VolumeVersion

NOW = 1000 * DAY
POLICY = Policy(builds_days=30, builds_keep_last=0, revisions_keep=1)


def record(number: int, days: float = 100, *, succeeded: bool = True, name: str = "digits") -> BuildRecord:
    """A build that ended so many days ago; one that has not for days < 0."""
    ended = NOW - days * DAY if days >= 0 else 0.0
    artifacts = frozenset({("registry/alice/digits", f"sha256:{number}")}) if succeeded and ended else frozenset()
    return BuildRecord(f"b-{number}", "alice", "vision", name, ended, succeeded, artifacts)


def use(present: int, builds: Mapping[int, str], *on_devices: int) -> Uses:
    return Uses((DeploymentUse(present, builds, frozenset(on_devices)),))


def gone(*builds: BuildRecord, uses: Uses | None = None, policy: Policy = POLICY) -> set[str]:
    return set(plan_builds(builds, uses or Uses(), policy, NOW).builds)


def test_old_builds_go_with_their_artifacts_and_young_ones_stay() -> None:
    removal = plan_builds([record(1, 31), record(2, 29)], Uses(), POLICY, NOW)
    assert removal.builds == ("b-1",)
    assert removal.artifacts == {Artifact("alice", "vision", "registry/alice/digits", "sha256:1")}


def test_the_last_that_succeeded_of_each_name_stay_however_old() -> None:
    policy = replace(POLICY, builds_keep_last=2)
    old = [record(number, 100 + number) for number in range(4)]
    failed, other = record(9, 90, succeeded=False), record(8, 200, name="other")
    assert gone(*old, failed, other, policy=policy) == {"b-2", "b-3", "b-9"}


def test_nothing_goes_of_a_project_that_builds() -> None:
    assert gone(record(1), record(2, -1)) == set()


def test_present_and_last_revisions_those_of_devices_and_the_ones_before_them_stay() -> None:
    builds = [record(number) for number in range(1, 10)]
    revisions = {number: f"b-{number}" for number in range(1, 10)}
    assert gone(*builds, uses=use(9, revisions)) == {f"b-{number}" for number in range(1, 8)}
    assert gone(*builds, uses=use(9, revisions, 4)) == {"b-1", "b-2", "b-5", "b-6", "b-7"}
    assert gone(*builds, uses=use(9, revisions), policy=replace(POLICY, revisions_keep=5)) == {
        "b-1",
        "b-2",
        "b-3",
        "b-4",
    }


def test_what_a_device_is_wished_to_have_stays_also_where_no_deployment_names_its_build() -> None:
    uses = Uses(artifacts=record(1).artifacts)
    assert gone(record(1), record(2), uses=uses) == {"b-2"}


def test_an_artifact_that_another_build_was_answered_with_stays() -> None:
    answered = replace(record(2, 1), artifacts=record(1).artifacts)
    removal = plan_builds([record(1), answered], Uses(), POLICY, NOW)
    assert (removal.builds, removal.artifacts) == (("b-1",), frozenset())


def test_what_was_noted_is_kept_when_it_is_used_again_and_waits_while_its_project_builds() -> None:
    first, second = (Artifact("alice", "vision", *next(iter(record(number).artifacts))) for number in (1, 2))
    assert deletable([first, second], [record(1)], Uses()) == ([second], [])
    assert deletable([first, second], [record(1), record(3, -1)], Uses()) == ([], [second])


DAYS = st.sampled_from([-1, 0, 10, 29, 31, 50, 100, 400])
BUILDS = st.lists(st.tuples(DAYS, st.booleans(), st.sampled_from(["a", "b"])), max_size=12).map(
    lambda rows: [record(number, days, succeeded=ok, name=name) for number, (days, ok, name) in enumerate(rows)]
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[BuildRecord], Uses, Policy]:
    builds = draw(BUILDS)
    # Some builds were answered with what others had made.
    builds = [
        replace(build, artifacts=draw(st.sampled_from(builds)).artifacts) if draw(st.integers(0, 4)) == 0 else build
        for build in builds
    ]
    ids = st.sampled_from([build.id for build in builds] or ["b-unknown"])
    deployments = []
    for _ in range(draw(st.integers(0, 4))):
        revisions = {number: draw(ids) for number in range(1, draw(st.integers(1, 8)) + 1)}
        numbers = st.sampled_from(sorted(revisions))
        deployments.append(DeploymentUse(max(revisions), revisions, draw(st.frozensets(numbers, max_size=3))))
    places = sorted({place for build in builds for place in build.artifacts})
    wished = draw(st.frozensets(st.sampled_from(places), max_size=2)) if places else frozenset[tuple[str, str]]()
    policy = Policy(
        builds_days=draw(st.sampled_from([0, 5, 30])),
        builds_keep_last=draw(st.integers(0, 3)),
        revisions_keep=draw(st.integers(1, 4)),
    )
    return builds, Uses(tuple(deployments), wished), policy


@given(situations())
def test_nothing_goes_that_is_running_or_that_anything_may_return_to(
    situation: tuple[list[BuildRecord], Uses, Policy],
) -> None:
    builds, uses, policy = situation
    removal = plan_builds(builds, uses, policy, NOW)
    known = {build.id: build for build in builds}
    deleted = {artifact.place for artifact in removal.artifacts}
    for deployment in uses.deployments:
        returnable = {deployment.present, *deployment.on_devices}
        returnable |= {revision - 1 for revision in returnable} & deployment.builds.keys()
        for revision in returnable:
            kept = deployment.builds[revision]
            assert kept not in removal.builds
            assert kept not in known or not known[kept].artifacts & deleted
    assert not uses.artifacts & deleted
    for build in builds:
        if build.id in removal.builds:
            assert 0 < build.ended < NOW - policy.builds_days * DAY
        else:
            assert not build.artifacts & deleted


@given(situations())
def test_a_second_round_has_nothing_more_to_do(situation: tuple[list[BuildRecord], Uses, Policy]) -> None:
    builds, uses, policy = situation
    removal = plan_builds(builds, uses, policy, NOW)
    left = [build for build in builds if build.id not in removal.builds]
    assert plan_builds(left, uses, policy, NOW).builds == ()
    assert set(deletable(removal.artifacts, left, uses)[0]) == removal.artifacts


def test_uploads_go_that_no_build_needs_and_nobody_used_for_long() -> None:
    contents = [Content("needed", 1, 0.0), Content("old", 1, NOW - 8 * DAY), Content("young", 1, NOW - 6 * DAY)]
    assert [content.digest for content in plan_uploads(contents, {"needed"}, POLICY, NOW)] == ["old"]


@pytest.mark.parametrize(("limit", "logs"), [(100, ["b-9", "b-1"]), (25, ["b-9", "b-1", "b-2"]), (0, None)])
def test_logs_go_by_age_then_by_size_the_oldest_first(limit: int, logs: list[str] | None) -> None:
    sizes = {f"b-{number}": 10 for number in (1, 2, 3, 4, 9)}
    builds = [record(1, 91), record(2, 50), record(3, 40), record(4, -1)]
    found = plan_logs(sizes, builds, replace(POLICY, logs_bytes=limit), NOW)
    assert found == (logs or ["b-9", "b-1", "b-2", "b-3"])


def test_layers_of_old_and_unknown_builds_go_and_those_of_running_ones_never() -> None:
    cached = [CachedLayers(f"image-{number}", f"b-{number}") for number in (1, 2, 3, 4, 9)]
    builds = [record(1, 31), record(2, 10), record(3, 20), record(4, -1)]
    old, young = plan_layers(cached, builds, POLICY, NOW)
    assert [each.build_id for each in old] == ["b-1", "b-9"]
    assert [each.build_id for each in young] == ["b-3", "b-2"]


def test_bases_go_by_their_last_use_among_the_layers_of_builds() -> None:
    bases = [CachedLayers(f"base-{days}", "", NOW - days * DAY) for days in (31, 15, 1)]
    old, young = plan_layers([*bases, CachedLayers("layers", "b-1")], [record(1, 10)], POLICY, NOW)
    assert [each.name for each in old] == ["base-31"]
    assert [each.name for each in young] == ["base-15", "layers", "base-1"]


def sized(number: int, days: float, digest: str, size: int) -> BuildRecord:
    place = ("registry/alice/digits", digest)
    return replace(record(number, days), artifacts=frozenset({place}), bytes_of={place: size})


def test_as_much_goes_as_is_missing_oldest_first_and_what_several_builds_have_frees_nothing_before_the_last() -> None:
    builds = [sized(1, 5, "a", 10), sized(2, 4, "a", 10), sized(3, 3, "b", 10), sized(4, 2, "c", 10), record(5, -1)]
    assert plan_room(builds, Uses(), POLICY, 0) == Removal()
    assert plan_room(builds, Uses(), POLICY, 1).builds == ("b-1", "b-2")
    assert plan_room(builds, Uses(), POLICY, 11).builds == ("b-1", "b-2", "b-3")
    everything = plan_room(builds, Uses(), POLICY, 1000)
    assert everything.builds == ("b-1", "b-2", "b-3", "b-4")
    assert {artifact.digest for artifact in everything.artifacts} == {"a", "b", "c"}


def test_however_little_room_there_is_what_is_deployed_or_wished_and_the_last_ones_stay() -> None:
    builds = [sized(number, 9 - number, str(number), 10) for number in range(1, 6)]
    uses = Uses((DeploymentUse(1, {1: "b-1"}),), frozenset({("registry/alice/digits", "3")}))
    policy = replace(POLICY, builds_keep_last=1)
    assert plan_room(builds, uses, policy, 1000).builds == ("b-2", "b-4")


@settings(max_examples=60)
@given(
    ages=st.lists(st.integers(0, 200), min_size=1, max_size=8),
    used=st.sets(st.integers(0, 7)),
    keep=st.integers(1, 3),
)
def test_no_version_of_a_volume_goes_that_is_used_young_or_among_the_last(
    ages: list[int], used: set[int], keep: int
) -> None:
    project = Project("alice", "digits")
    versions = [
        VolumeVersion(f"vol-{number}", project, "model", f"sha256:{number}", "registry/v", 1, 1, NOW - age * DAY)
        for number, age in enumerate(ages)
    ]
    places = frozenset(("registry/v", f"sha256:{number}") for number in used)
    uses = Uses((DeploymentUse(3, {1: "b-1", 2: "b-2", 3: "b-3"}, frozenset(), {2: places}),))
    gone_ones = {each.id for each in plan_volumes(versions, uses, replace(POLICY, volumes_keep_last=keep), NOW)}
    newest_first = [each.id for each in sorted(versions, key=lambda each: (-each.pushed, each.id))]
    assert gone_ones == {
        f"vol-{number}"
        for number, age in enumerate(ages)
        if age > 90 and number not in used and f"vol-{number}" not in newest_first[:keep]
    }
