"""Deployments and their revisions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from controller.deployments.model import Condition, Deployment, DeploymentState, LeftOut, Wish
from controller.events.model import Project
from controller.store import schema
from controller.store.rows import volumes_from_json, volumes_to_json
from controller.volumes.model import PinnedVolume

TABLE = schema.deployments
REVISIONS = schema.revisions


class DeploymentTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, deployment: Deployment) -> None:
        self._connection.execute(insert(TABLE).values(**_values(deployment)))

    def change(self, deployment: Deployment) -> None:
        """Stores this deployment as it is now."""
        self._connection.execute(update(TABLE).where(TABLE.c.id == deployment.id).values(**_values(deployment)))

    def add_revision(
        self,
        deployment: Deployment,
        request_id: str,
        secrets: bytes | None = None,
        author: str = "",
        undo_of: int = 0,
        volumes: Sequence[PinnedVolume] = (),
    ) -> None:
        """Keeps the present revision for the history. `secrets`: sealed values; `undo_of` as of `Revision`; `volumes`:
        the versions that it has."""
        self._connection.execute(
            insert(REVISIONS).values(
                deployment_id=deployment.id,
                revision=deployment.revision,
                user_id=deployment.project.user_id,
                project_id=deployment.project.project_id,
                build_id=deployment.build_id,
                spec=deployment.spec,
                created=deployment.updated,
                request_id=request_id or None,
                secrets=secrets,
                author=author,
                undo_of=undo_of,
                volumes=volumes_to_json(volumes),
            )
        )

    def volumes(self, deployment_id: str, revision: int) -> tuple[PinnedVolume, ...]:
        """The versions of project volumes that the revision has."""
        query = select(REVISIONS.c.volumes).where(
            REVISIONS.c.deployment_id == deployment_id, REVISIONS.c.revision == revision
        )
        return volumes_from_json(self._connection.scalar(query))

    def secrets(self, deployment_id: str, revision: int) -> bytes | None:
        """The sealed values of a revision's secrets; None where there are none (any more)."""
        query = select(REVISIONS.c.secrets).where(
            REVISIONS.c.deployment_id == deployment_id, REVISIONS.c.revision == revision
        )
        value: bytes | None = self._connection.scalar(query)
        return value

    def wipe_secrets(self, deployment_id: str, before: int | None = None) -> None:
        """The values of its secrets are gone; of revisions before this one only, where it is given."""
        mine = [REVISIONS.c.deployment_id == deployment_id, REVISIONS.c.secrets.is_not(None)]
        if before is not None:
            mine.append(REVISIONS.c.revision < before)
        self._connection.execute(update(REVISIONS).where(*mine).values(secrets=None))

    def get(self, deployment_id: str) -> Deployment | None:
        return self._one(TABLE.c.id == deployment_id)

    def by_name(self, project: Project, name: str) -> Deployment | None:
        """The deployment of this name that is not deleted."""
        return self._one(*_of(project), TABLE.c.name == name, TABLE.c.wish != Wish.DELETE)

    def by_request(self, project: Project, request_id: str) -> Deployment | None:
        """The deployment that an earlier call with this request id made or changed."""
        query = select(REVISIONS.c.deployment_id).where(
            REVISIONS.c.user_id == project.user_id,
            REVISIONS.c.project_id == project.project_id,
            REVISIONS.c.request_id == request_id,
        )
        deployment_id = self._connection.scalar(query)
        return None if deployment_id is None else self.get(deployment_id)

    def of_build(self, build_id: str) -> list[Deployment]:
        """Deployments whose present revision waits for, or runs, this build."""
        return self._many(select(TABLE).where(TABLE.c.build_id == build_id))

    def builds_of(self, deployment_id: str) -> list[str]:
        """Ids of the builds of all revisions."""
        query = select(REVISIONS.c.build_id).where(REVISIONS.c.deployment_id == deployment_id).distinct()
        return list(self._connection.scalars(query))

    def running(self) -> list[Deployment]:
        """All that are wished to run."""
        return self._many(select(TABLE).where(TABLE.c.wish == Wish.RUN).order_by(TABLE.c.created))

    def found_by(self, query: Any) -> list[Deployment]:
        """What this selection of the table's rows finds."""
        return self._many(query)

    def _one(self, *conditions: Any) -> Deployment | None:
        found = self._many(select(TABLE).where(*conditions))
        return found[0] if found else None

    def _many(self, query: Any) -> list[Deployment]:
        return [_deployment(row) for row in self._connection.execute(query).mappings()]


def _of(project: Project) -> tuple[Any, Any]:
    return TABLE.c.user_id == project.user_id, TABLE.c.project_id == project.project_id


PLAIN = ("id", "name", "revision", "since", "build_id", "created", "updated", "spec")


def _values(deployment: Deployment) -> dict[str, Any]:
    values = {key: getattr(deployment, key) for key in PLAIN}
    values.update(user_id=deployment.project.user_id, project_id=deployment.project.project_id)
    values["left_out"] = [asdict(device) for device in deployment.left_out]
    values.update(vars(deployment.condition), wish=deployment.wish.value, state=deployment.condition.state.value)
    return values


def _deployment(row: RowMapping) -> Deployment:
    return Deployment(
        project=Project(row["user_id"], row["project_id"]),
        wish=Wish(row["wish"]),
        left_out=tuple(LeftOut(**device) for device in row["left_out"]),
        condition=Condition(DeploymentState(row["state"]), row["reason"], row["message"]),
        **{key: row[key] for key in PLAIN},
    )
