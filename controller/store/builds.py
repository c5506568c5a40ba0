"""Builds and their targets. The queue is a query: what is queued and due, oldest first."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from controller.builds.model import ArtifactKind, Build, BuildState, BuildTarget, ContextFile
from controller.events.model import Project
from controller.store import schema
from controller.store.rows import Page, artifact_from_json, artifact_to_json, page_token, paged, that_fit
from controller.store.signals import BuildsQueued, Signal

BUILDS = schema.builds
TARGETS = schema.build_targets


class BuildTable:
    def __init__(self, connection: Connection, signals: list[Signal]) -> None:
        self._connection = connection
        self._signals = signals

    def add(self, build: Build, request_id: str) -> None:
        """Queues all targets of the build."""
        values = {key: getattr(build, key) for key in ("id", "user_id", "project_id", "name", "spec", "created")}
        values.update({key: getattr(build, key) for key in ("no_cache", "cancel_requested", "join_next")})
        values["image_index"] = artifact_to_json(build.image_index)
        files = [asdict(file) for file in build.files]
        self._connection.execute(insert(BUILDS).values(files=files, request_id=request_id or None, **values))
        for position, target in enumerate(build.targets):
            row = _target_values(target)
            self._connection.execute(insert(TARGETS).values(build_id=build.id, position=position, **row))
        self._signals.append(BuildsQueued())

    def get(self, build_id: str) -> Build | None:
        row = self._connection.execute(select(BUILDS).where(BUILDS.c.id == build_id)).mappings().first()
        return None if row is None else self._with_targets([row])[0]

    def by_request(self, project: Project, request_id: str) -> Build | None:
        """The build that an earlier call with this request id made."""
        query = select(BUILDS).where(*_of(project), BUILDS.c.request_id == request_id)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else self._with_targets([row])[0]

    def page(self, project: Project | None, user_id: str, page: Page) -> tuple[list[Build], str]:
        """Newest first, of one project or of one user ("" for all); and the token of the next page."""
        query = paged(select(BUILDS), BUILDS, page)
        if project is not None:
            query = query.where(*_of(project))
        if user_id:
            query = query.where(BUILDS.c.user_id == user_id)
        rows = self._connection.execute(query).mappings().all()
        shown = self._with_targets(that_fit(rows[: page.limit], lambda row: len(row["spec"])))
        return shown, page_token(shown[-1].created, shown[-1].id) if len(rows) > len(shown) else ""

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        """(build id, target's key) of targets that wait and whose time has come, oldest build first."""
        query = (
            select(TARGETS.c.build_id, TARGETS.c.key)
            .join(BUILDS, BUILDS.c.id == TARGETS.c.build_id)
            .where(TARGETS.c.state == BuildState.QUEUED, TARGETS.c.next_try <= now)
            .order_by(BUILDS.c.created, TARGETS.c.position)
            .limit(limit)
        )
        return [(row.build_id, row.key) for row in self._connection.execute(query)]

    def next_due(self) -> float | None:
        """When the next waiting target's time comes; None where none waits."""
        query = select(func.min(TARGETS.c.next_try)).where(TARGETS.c.state == BuildState.QUEUED)
        value: float | None = self._connection.scalar(query)
        return value

    def unfinished(self) -> list[tuple[str, str]]:
        """(build id, target's key) of targets that a controller had begun and not ended."""
        begun = (BuildState.PREPARING, BuildState.BUILDING, BuildState.PUSHING)
        query = select(TARGETS.c.build_id, TARGETS.c.key).where(TARGETS.c.state.in_(begun))
        return [(row.build_id, row.key) for row in self._connection.execute(query)]

    def change_target(self, build_id: str, target: BuildTarget) -> None:
        """Stores this target as it is now."""
        of_target = (TARGETS.c.build_id == build_id, TARGETS.c.key == target.key)
        self._connection.execute(update(TARGETS).where(*of_target).values(**_target_values(target)))
        if target.state is BuildState.QUEUED:
            self._signals.append(BuildsQueued())

    def _with_targets(self, rows: Sequence[RowMapping]) -> list[Build]:
        query = select(TARGETS).where(TARGETS.c.build_id.in_([row["id"] for row in rows])).order_by(TARGETS.c.position)
        targets: dict[str, list[BuildTarget]] = {row["id"]: [] for row in rows}
        for row in self._connection.execute(query).mappings():
            targets[row["build_id"]].append(_target(row))
        return [_build(row, tuple(targets[row["id"]])) for row in rows]


def _of(project: Project) -> tuple[Any, Any]:
    return BUILDS.c.user_id == project.user_id, BUILDS.c.project_id == project.project_id


def _build(row: RowMapping, targets: tuple[BuildTarget, ...]) -> Build:
    kept = ("id", "user_id", "project_id", "name", "spec", "created", "no_cache", "cancel_requested", "join_next")
    plain = {key: row[key] for key in kept}
    plain["image_index"] = artifact_from_json(row["image_index"])
    return Build(files=tuple(ContextFile(**file) for file in row["files"]), targets=targets, **plain)


def _target_values(target: BuildTarget) -> dict[str, Any]:
    values = dict(vars(target))
    values.update(state=target.state.value, kind=target.kind.value)
    values.update(last_lines=list(target.last_lines), notes=list(target.notes))
    values["artifact"] = artifact_to_json(target.artifact)
    return values


def _target(row: RowMapping) -> BuildTarget:
    values = {key: row[key] for key in BuildTarget.__dataclass_fields__}
    values.update(state=BuildState(row["state"]), kind=ArtifactKind(row["kind"]))
    values.update(last_lines=tuple(row["last_lines"]), notes=tuple(row["notes"]))
    values["artifact"] = artifact_from_json(row["artifact"])
    return BuildTarget(**values)
