"""Versions of project volumes."""

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from controller.events.model import Project
from controller.store import schema
from controller.store.rows import Page, page_token, paged
from controller.volumes.model import VolumeVersion

TABLE = schema.volume_versions
OTHERS = TABLE.alias("others")
# What is pushed later is later, whatever the clock says.
MOMENT = 0.001


class VolumeTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, version: VolumeVersion) -> VolumeVersion:
        """Makes it the latest of its volume; one that was there under its digest keeps its id."""
        others = self.of(version.project, version.name)
        known = next((other for other in others if other.digest == version.digest), None)
        last = max((other.pushed + MOMENT for other in others), default=0.0)
        version = replace(version, id=known.id if known else version.id, pushed=max(version.pushed, last))
        if known is None:
            self._connection.execute(insert(TABLE).values(**_values(version)))
        else:
            self._connection.execute(update(TABLE).where(TABLE.c.id == known.id).values(pushed=version.pushed))
        return version

    def find(self, project: Project, name: str, digest: str = "") -> VolumeVersion | None:
        """The version of this digest; the latest for ""."""
        return next((each for each in self.of(project, name) if digest in ("", each.digest)), None)

    def of(self, project: Project, name: str) -> list[VolumeVersion]:
        """All versions of the volume, the latest first."""
        query = _selected().where(*_of(project), TABLE.c.name == name).order_by(TABLE.c.pushed.desc())
        return self._many(query)

    def all(self) -> list[VolumeVersion]:
        return self._many(_selected())

    def page(self, project: Project | None, user_id: str, name: str, page: Page) -> tuple[list[VolumeVersion], str]:
        """The latest push first, of one project or of one user ("" for all); and the token of the next page."""
        query = paged(_selected(), TABLE, page, order="pushed")
        if project is not None:
            query = query.where(*_of(project))
        if user_id:
            query = query.where(TABLE.c.user_id == user_id)
        if name:
            query = query.where(TABLE.c.name == name)
        found = self._many(query)
        shown = found[: page.limit]
        return shown, page_token(shown[-1].pushed, shown[-1].id) if len(found) > len(shown) else ""

    def remove(self, ids: Collection[str]) -> None:
        self._connection.execute(delete(TABLE).where(TABLE.c.id.in_(list(ids))))

    def _many(self, query: Any) -> list[VolumeVersion]:
        return [_version(row) for row in self._connection.execute(query).mappings()]


def _selected() -> Any:
    """Rows, each with whether it is the latest of its volume."""
    same = (OTHERS.c[key] == TABLE.c[key] for key in ("user_id", "project_id", "name"))
    newest = select(func.max(OTHERS.c.pushed)).where(*same).scalar_subquery()
    return select(TABLE, (TABLE.c.pushed == newest).label("latest"))


def _of(project: Project) -> tuple[Any, Any]:
    return TABLE.c.user_id == project.user_id, TABLE.c.project_id == project.project_id


def _values(version: VolumeVersion) -> dict[str, Any]:
    kept = {key: value for key, value in asdict(version).items() if key not in ("project", "latest")}
    return {**kept, "user_id": version.project.user_id, "project_id": version.project.project_id}


def _version(row: RowMapping) -> VolumeVersion:
    plain = {key: row[key] for key in ("id", "name", "digest", "repository", "size_bytes", "files", "pushed")}
    return VolumeVersion(project=Project(row["user_id"], row["project_id"]), latest=bool(row["latest"]), **plain)
