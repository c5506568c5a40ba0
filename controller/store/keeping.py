"""What housekeeping asks of the rows, and what it removes of them."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Connection, delete, select

from controller.builds.model import BuildState
from controller.deployments.model import DeploymentState, Wish
from controller.housekeeping.plan import BuildRecord, DeploymentUse, Uses, used_builds, used_volumes
from controller.store import schema

BUILDS = schema.builds
TARGETS = schema.build_targets
DEPLOYMENTS = schema.deployments
REVISIONS = schema.revisions
WORKLOADS = schema.workloads
INSTANCES = schema.instances
VOLUMES = schema.volume_versions
DONE = (BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED)
# So many ids stand in one statement.
AT_A_TIME = 500


class KeepingTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def builds(self) -> list[BuildRecord]:
        """All builds."""
        columns = (BUILDS.c.id, BUILDS.c.user_id, BUILDS.c.project_id, BUILDS.c.name, BUILDS.c.image_index)
        targets: dict[str, list[Any]] = defaultdict(list)
        for row in self._connection.execute(
            select(TARGETS.c.build_id, TARGETS.c.state, TARGETS.c.ended, TARGETS.c.artifact)
        ):
            targets[row.build_id].append(row)
        rows = self._connection.execute(select(*columns, BUILDS.c.join_next, BUILDS.c.created))
        return [_record(row, targets[row.id]) for row in rows]

    def uses(self) -> Uses:
        """What deployments and devices use or may return to."""
        builds: dict[str, dict[int, str]] = defaultdict(dict)
        volumes: dict[str, dict[int, frozenset[tuple[str, str]]]] = defaultdict(dict)
        for row in self._connection.execute(
            select(REVISIONS.c.deployment_id, REVISIONS.c.revision, REVISIONS.c.build_id, REVISIONS.c.volumes)
        ):
            builds[row.deployment_id][row.revision] = row.build_id
            if row.volumes:
                places = frozenset((each["repository"], each["digest"]) for each in row.volumes)
                volumes[row.deployment_id][row.revision] = places
        on_devices: dict[str, set[int]] = defaultdict(set)
        for table in (WORKLOADS, INSTANCES):
            for deployment_id, revision in self._connection.execute(select(table.c.deployment_id, table.c.revision)):
                on_devices[deployment_id].add(revision)
        kept = _still_there()
        present = self._connection.execute(
            select(DEPLOYMENTS.c.id, DEPLOYMENTS.c.revision, DEPLOYMENTS.c.build_id).where(kept)
        )
        uses = tuple(
            DeploymentUse(
                row.revision, {row.revision: row.build_id, **builds[row.id]}, frozenset(on_devices[row.id]),
                volumes[row.id],
            )
            for row in present
        )  # fmt: skip
        wished = self._connection.scalars(select(WORKLOADS.c.artifact))
        kept_volumes = self._connection.execute(select(VOLUMES.c.repository, VOLUMES.c.digest))
        artifacts = {(value["repository"], value["digest"]) for value in wished}
        return Uses(uses, frozenset(artifacts | {(row.repository, row.digest) for row in kept_volumes}))

    def used_volumes(self) -> set[tuple[str, str]]:
        """(repository, digest) of the versions of volumes that deployments have or devices may return to."""
        return used_volumes(self.uses(), revisions_keep=0)

    def building(self, project: tuple[str, str] | None = None) -> bool:
        """Whether a build has not ended: of this user's project, or any at all."""
        query = select(BUILDS.c.id).join(TARGETS, TARGETS.c.build_id == BUILDS.c.id)
        query = query.where(TARGETS.c.state.not_in(DONE) | (BUILDS.c.join_next > 0))
        if project is not None:
            query = query.where(BUILDS.c.user_id == project[0], BUILDS.c.project_id == project[1])
        return self._connection.execute(query.limit(1)).first() is not None

    def joining(self, project: tuple[str, str]) -> bool:
        """Whether the images of a build of this user's project are being joined."""
        query = select(BUILDS.c.id).where(BUILDS.c.user_id == project[0], BUILDS.c.project_id == project[1])
        return self._connection.execute(query.where(BUILDS.c.join_next > 0).limit(1)).first() is not None

    def refers_to(self, repository: str, digest: str) -> bool:
        """Whether a build made this artifact, a device is wished to have it, or it is a version of a volume."""
        here = select(VOLUMES.c.id).where(VOLUMES.c.digest == digest, VOLUMES.c.repository == repository)
        if self._connection.execute(here.limit(1)).first() is not None:
            return True
        return any(
            self._connection.execute(
                select(column)
                .where(column["digest"].as_string() == digest, column["repository"].as_string() == repository)
                .limit(1)
            ).first()
            is not None
            for column in (TARGETS.c.artifact, BUILDS.c.image_index, WORKLOADS.c.artifact)
        )

    def described(self) -> set[str]:
        """Ids of all builds, and of those that made what these were answered with."""
        origins = self._connection.scalars(select(TARGETS.c.cached_from).where(TARGETS.c.cached_from != "").distinct())
        return {*self._connection.scalars(select(BUILDS.c.id)), *origins}

    def used_artifacts(self, revisions_keep: int) -> set[tuple[str, str]]:
        """(repository, digest) of what deployments and devices use or may return to."""
        uses = self.uses()
        found = set(uses.artifacts)
        for some in _batches(used_builds(uses, revisions_keep)):
            for query in (
                select(TARGETS.c.artifact).where(TARGETS.c.build_id.in_(some)),
                select(BUILDS.c.image_index).where(BUILDS.c.id.in_(some)),
            ):
                made = (value for value in self._connection.scalars(query) if value is not None)
                found.update((value["repository"], value["digest"]) for value in made)
        return found

    def contents(self, build_ids: Collection[str]) -> set[str]:
        """Digests of the files of these builds."""
        digests: set[str] = set()
        for some in _batches(build_ids):
            for files in self._connection.scalars(select(BUILDS.c.files).where(BUILDS.c.id.in_(some))):
                digests.update(file["digest"] for file in files)
        return digests

    def remove(self, build_ids: Collection[str]) -> None:
        """Afterwards nothing is known of these builds but their events."""
        for some in _batches(build_ids):
            self._connection.execute(delete(TARGETS).where(TARGETS.c.build_id.in_(some)))
            self._connection.execute(delete(BUILDS).where(BUILDS.c.id.in_(some)))


def _still_there() -> Any:
    """A deployment that is being deleted has something on a device still."""
    return (DEPLOYMENTS.c.wish != Wish.DELETE) | (DEPLOYMENTS.c.state != DeploymentState.DELETED)


def _record(row: Any, targets: list[Any]) -> BuildRecord:
    made = [value for value in (*(target.artifact for target in targets), row.image_index) if value is not None]
    over = all(target.state in DONE for target in targets) and not row.join_next
    return BuildRecord(
        row.id,
        row.user_id,
        row.project_id,
        row.name,
        # A build without a target would never end.
        ended=max([target.ended for target in targets] + [row.created]) if over else 0.0,
        succeeded=any(target.state == BuildState.SUCCEEDED for target in targets),
        artifacts=frozenset((value["repository"], value["digest"]) for value in made),
        bytes_of={(value["repository"], value["digest"]): value["size_bytes"] for value in made},
    )


def _batches(build_ids: Collection[str]) -> Iterator[list[str]]:
    ordered = list(build_ids)
    return (ordered[begin : begin + AT_A_TIME] for begin in range(0, len(ordered), AT_A_TIME))
