"""What may go: decided from rows alone. Pure: time and sizes are arguments.

Never what a deployment runs or may return to: the build of its present revision, those of its last revisions, those of
revisions that a device names and of the revision before each of these, and any artifact that a device is wished to
have. Never anything of a build that has not ended.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from controller.builds.uploads import Content
from controller.events.model import Project
from controller.volumes.model import VolumeVersion

DAY = 86400.0


class Artifact(NamedTuple):
    """What lies in the registry, and the project whose builds push there. `digest` is a tag while nobody has looked
    what a push that was begun there has left."""

    user_id: str
    project_id: str
    repository: str
    digest: str

    @property
    def looked_up(self) -> bool:
        return ":" in self.digest

    @property
    def project(self) -> tuple[str, str]:
        return self.user_id, self.project_id

    @property
    def place(self) -> tuple[str, str]:
        return self.repository, self.digest


@dataclass(frozen=True)
class Policy:
    """As the settings `housekeeping` have it; days, counts, bytes."""

    builds_days: float = 30
    builds_keep_last: int = 5
    revisions_keep: int = 20
    volumes_days: float = 90
    volumes_keep_last: int = 5
    uploads_days: float = 7
    logs_days: float = 90
    logs_bytes: int = 2**32
    events_days: float = 90
    events_keep_last: int = 1000
    cache_days: float = 30
    cache_bytes: int = 50 * 2**30


@dataclass(frozen=True)
class BuildRecord:
    """`ended` is 0 while the build has not."""

    id: str
    user_id: str
    project_id: str
    name: str
    ended: float
    succeeded: bool
    # (repository, digest) of what its targets and its index are, and the size of each.
    artifacts: frozenset[tuple[str, str]] = frozenset()
    bytes_of: Mapping[tuple[str, str], int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class DeploymentUse:
    """A deployment that is not deleted: its present revision, the build of each revision, and the revisions that are
    wished of or reported by some device."""

    present: int
    builds: Mapping[int, str]
    on_devices: frozenset[int] = frozenset()
    # (repository, digest) of the versions of project volumes of each revision that has some.
    volumes: Mapping[int, frozenset[tuple[str, str]]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Uses:
    """`artifacts`: (repository, digest) of all that devices are wished to have, or to remove, and of all versions of
    project volumes."""

    deployments: tuple[DeploymentUse, ...] = ()
    artifacts: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Rows:
    """All builds, and all uses."""

    builds: Sequence[BuildRecord]
    uses: Uses


@dataclass(frozen=True)
class Removal:
    """Builds whose records go, and the artifacts that nothing refers to then."""

    builds: tuple[str, ...] = ()
    artifacts: frozenset[Artifact] = field(default_factory=frozenset)


@dataclass(frozen=True)
class CachedLayers:
    """An image in the builder's storage under this name: a build left it, or (`build_id` is empty) one stood on it last
    at `last_used`."""

    name: str
    build_id: str
    last_used: float = 0.0


def plan_builds(builds: Sequence[BuildRecord], uses: Uses, policy: Policy, now: float) -> Removal:
    """Builds that ended long ago, that no deployment or device may need, and that are not among the last of their
    name. Nothing of a project that builds at this moment: it may be pushing the same content again."""
    kept = needed_builds(builds, uses, policy.revisions_keep) | _last_ones(builds, policy.builds_keep_last)
    busy = {(build.user_id, build.project_id) for build in builds if not build.ended}
    gone = [
        build
        for build in builds
        if build.ended
        and build.ended < now - policy.builds_days * DAY
        and build.id not in kept
        and (build.user_id, build.project_id) not in busy
    ]
    return _removal(gone, builds, uses)


def plan_room(builds: Sequence[BuildRecord], uses: Uses, policy: Policy, missing: int) -> Removal:
    """Builds that no deployment or device may need and that are not among the last of their name, however young: those
    that ended first, until what goes with them is as much as is missing. Only while nothing is built."""
    kept = needed_builds(builds, uses, policy.revisions_keep) | _last_ones(builds, policy.builds_keep_last)
    holders = Counter(place for build in builds for place in build.artifacts)
    holders.update(uses.artifacts)
    gone: list[BuildRecord] = []
    for build in sorted(builds, key=lambda each: (each.ended, each.id)):
        if missing <= 0:
            break
        if build.id not in kept:
            gone.append(build)
            holders.subtract(build.artifacts)
            missing -= sum(build.bytes_of.get(place, 0) for place in build.artifacts if not holders[place])
    return _removal(gone, builds, uses)


def _removal(gone: Sequence[BuildRecord], builds: Sequence[BuildRecord], uses: Uses) -> Removal:
    ids = {build.id for build in gone}
    referred = referred_artifacts((build for build in builds if build.id not in ids), uses)
    artifacts = {
        Artifact(build.user_id, build.project_id, *place)
        for build in gone
        for place in build.artifacts
        if place not in referred
    }
    return Removal(tuple(build.id for build in gone), frozenset(artifacts))


def used_builds(uses: Uses, revisions_keep: int) -> set[str]:
    """Ids of builds that deployments run or may return to."""
    return {build_id for use in uses.deployments for build_id in _builds_of(use, revisions_keep)}


def used_volumes(uses: Uses, revisions_keep: int) -> set[tuple[str, str]]:
    """(repository, digest) of versions of project volumes that deployments have or may return to."""
    kept = ((use, revision) for use in uses.deployments for revision in _kept_revisions(use, revisions_keep))
    return {place for use, revision in kept for place in use.volumes.get(revision, ())}


def needed_builds(builds: Iterable[BuildRecord], uses: Uses, revisions_keep: int) -> set[str]:
    """Ids of builds that are not ended, or that deployments and devices run or may return to."""
    named = used_builds(uses, revisions_keep)
    return named | {build.id for build in builds if not build.ended or build.artifacts & uses.artifacts}


def referred_artifacts(builds: Iterable[BuildRecord], uses: Uses) -> set[tuple[str, str]]:
    """(repository, digest) of all artifacts of these builds and of the devices."""
    return {place for build in builds for place in build.artifacts} | uses.artifacts


def plan_volumes(versions: Iterable[VolumeVersion], uses: Uses, policy: Policy, now: float) -> list[VolumeVersion]:
    """Versions of project volumes that were pushed long ago, that no deployment or device may need, and that are not
    among the last of their volume."""
    used = used_volumes(uses, policy.revisions_keep)
    by_volume: dict[tuple[Project, str], list[VolumeVersion]] = {}
    for version in sorted(versions, key=lambda each: (-each.pushed, each.id)):
        by_volume.setdefault((version.project, version.name), []).append(version)
    later = (each for volume in by_volume.values() for each in volume[policy.volumes_keep_last :])
    oldest = now - policy.volumes_days * DAY
    return [each for each in later if each.pushed < oldest and each.place not in used]


def deletable(
    artifacts: Iterable[Artifact], builds: Sequence[BuildRecord], uses: Uses
) -> tuple[list[Artifact], list[Artifact]]:
    """Of what was to go: what can go now, and what has to wait for its project's builds. The rest is referred to
    again, and stays."""
    referred = referred_artifacts(builds, uses)
    busy = {(build.user_id, build.project_id) for build in builds if not build.ended}
    free = [artifact for artifact in artifacts if artifact.place not in referred]
    return [each for each in free if each.project not in busy], [each for each in free if each.project in busy]


def plan_uploads(contents: Iterable[Content], needed: Collection[str], policy: Policy, now: float) -> list[Content]:
    """Contents that no build needs and that were not used for long."""
    oldest = now - policy.uploads_days * DAY
    return [content for content in contents if content.digest not in needed and content.last_used < oldest]


def plan_logs(sizes: Mapping[str, int], builds: Iterable[BuildRecord], policy: Policy, now: float) -> list[str]:
    """Builds whose finished logs go: those of builds that ended long ago or are gone, then the oldest, until the rest
    is small enough. `sizes` must have been read before `builds`."""
    ended = {build.id: build.ended for build in builds}
    # A log that goes on is no longer finished.
    finished = [build_id for build_id in sizes if ended.get(build_id, 1.0)]
    oldest_first = sorted(finished, key=lambda build_id: (ended.get(build_id, 0.0), build_id))
    left, gone = sum(sizes.values()), []
    for build_id in oldest_first:
        if ended.get(build_id, 0.0) < now - policy.logs_days * DAY or left > policy.logs_bytes:
            gone.append(build_id)
            left -= sizes[build_id]
    return gone


def plan_layers(
    cached: Iterable[CachedLayers], builds: Iterable[BuildRecord], policy: Policy, now: float
) -> tuple[list[CachedLayers], list[CachedLayers]]:
    """Images in the builder's storage that go, and those that may go, oldest use first, while the storage is too large;
    of each with its last use. Those of builds that have not ended are in neither."""
    ended = {build.id: build.ended for build in builds}
    rest = [each for each in cached if ended.get(each.build_id, 1.0)]
    used = [replace(each, last_used=ended.get(each.build_id, each.last_used)) for each in rest]
    old = [each for each in used if each.last_used < now - policy.cache_days * DAY]
    young = sorted(set(used) - set(old), key=lambda each: (each.last_used, each.name))
    return old, young


def _builds_of(use: DeploymentUse, revisions_keep: int) -> Iterator[str]:
    kept = _kept_revisions(use, revisions_keep)
    return (build_id for revision, build_id in use.builds.items() if revision in kept)


def _kept_revisions(use: DeploymentUse, revisions_keep: int) -> set[int]:
    ordered = sorted(use.builds)
    kept = {use.present, *use.on_devices, *ordered[max(0, len(ordered) - revisions_keep) :]}
    for revision in (use.present, *use.on_devices):
        # What a device goes back to when this one does not become ready.
        kept |= set([earlier for earlier in ordered if earlier < revision][-1:])
    return kept


def _last_ones(builds: Iterable[BuildRecord], count: int) -> set[str]:
    by_name: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for build in builds:
        if build.succeeded and build.ended:
            by_name.setdefault((build.user_id, build.project_id, build.name), []).append((build.ended, build.id))
    return {build_id for ended in by_name.values() for _, build_id in sorted(ended, reverse=True)[:count]}
