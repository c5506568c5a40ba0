"""Builds and their targets as they are. `controller.store.build_queue` tells what of them waits."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from controller.builds.model import ArtifactKind, Build, BuildState, BuildTarget, ContextFile
from controller.events.model import Project
from controller.store import schema
from controller.store.rows import Page, artifact_from_json, artifact_to_json, page_token, paged, that_fit
from controller.store.signals import BuildCancelled, BuildEnded, BuildsQueued, JoinDue, Signal

BUILDS = schema.builds
TARGETS = schema.build_targets


class BuildTable:
    def __init__(self, connection: Connection, signals: list[Signal]) -> None:
        self._connection = connection
        self._signals = signals

    def add(self, build: Build, request_id: str, secrets: bytes | None = None) -> None:
        """Stores the build; its queued targets wait from now on. `secrets`: sealed values."""
        values = {key: getattr(build, key) for key in ("id", "user_id", "project_id", "name", "spec", "created")}
        values.update({key: getattr(build, key) for key in ("no_cache", "cancel_requested", "join_next")})
        values.update(image_index=artifact_to_json(build.image_index), tags=list(build.tags), secrets=secrets)
        values["files"] = [asdict(file) for file in build.files]
        self._connection.execute(insert(BUILDS).values(request_id=request_id or None, **values))
        for position, target in enumerate(build.targets):
            row = _target_values(target)
            self._connection.execute(insert(TARGETS).values(build_id=build.id, position=position, **row))
        self._signals.append(BuildsQueued())
        if build.join_next:
            self._signals.append(JoinDue())

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

    def secrets(self, build_id: str) -> bytes | None:
        """The sealed values of its secrets; None where there are none (any more)."""
        value: bytes | None = self._connection.scalar(select(BUILDS.c.secrets).where(BUILDS.c.id == build_id))
        return value

    def change(self, build: Build) -> None:
        """Stores what can change of a build besides its targets."""
        values = {"cancel_requested": build.cancel_requested, "join_next": build.join_next}
        values["image_index"] = artifact_to_json(build.image_index)  # type: ignore[assignment]
        self._connection.execute(update(BUILDS).where(BUILDS.c.id == build.id).values(**values))
        if build.join_next:
            self._signals.append(JoinDue())

    def tell_ended(self, build_id: str) -> None:
        """Listeners are told that the build has ended."""
        self._signals.append(BuildEnded(build_id))

    def tell_cancelled(self, build_id: str) -> None:
        """Listeners are told that what runs of the build is to end."""
        self._signals.append(BuildCancelled(build_id))

    def wipe_secrets(self, build_id: str) -> None:
        """Nobody needs them any more."""
        self._connection.execute(update(BUILDS).where(BUILDS.c.id == build_id).values(secrets=None))

    def change_target(self, build_id: str, target: BuildTarget) -> None:
        """Stores this target as it is now."""
        of_target = (TARGETS.c.build_id == build_id, TARGETS.c.key == target.key)
        self._connection.execute(update(TARGETS).where(*of_target).values(**_target_values(target)))
        if target.state is BuildState.QUEUED:
            self._signals.append(BuildsQueued())

    def _with_targets(self, rows: Sequence[RowMapping]) -> list[Build]:
        return builds_from_rows(self._connection, rows)


def builds_from_rows(connection: Connection, rows: Sequence[RowMapping]) -> list[Build]:
    """The builds that these rows of `builds` are, with their targets."""
    query = select(TARGETS).where(TARGETS.c.build_id.in_([row["id"] for row in rows])).order_by(TARGETS.c.position)
    targets: dict[str, list[BuildTarget]] = {row["id"]: [] for row in rows}
    for row in connection.execute(query).mappings():
        targets[row["build_id"]].append(target_from_row(row))
    return [_build(row, tuple(targets[row["id"]])) for row in rows]


def _of(project: Project) -> tuple[Any, Any]:
    return BUILDS.c.user_id == project.user_id, BUILDS.c.project_id == project.project_id


def _build(row: RowMapping, targets: tuple[BuildTarget, ...]) -> Build:
    kept = ("id", "user_id", "project_id", "name", "spec", "created", "no_cache", "cancel_requested", "join_next")
    plain = {key: row[key] for key in kept}
    plain["image_index"] = artifact_from_json(row["image_index"])
    plain["tags"] = tuple(row["tags"])
    return Build(files=tuple(ContextFile(**file) for file in row["files"]), targets=targets, **plain)


def _target_values(target: BuildTarget) -> dict[str, Any]:
    values = dict(vars(target))
    values.update(state=target.state.value, kind=target.kind.value)
    values.update(last_lines=list(target.last_lines), notes=list(target.notes))
    values["artifact"] = artifact_to_json(target.artifact)
    return values


def target_from_row(row: RowMapping) -> BuildTarget:
    """The target that a row of `build_targets` is."""
    values = {key: row[key] for key in BuildTarget.__dataclass_fields__}
    values.update(state=BuildState(row["state"]), kind=ArtifactKind(row["kind"]))
    values.update(last_lines=tuple(row["last_lines"]), notes=tuple(row["notes"]))
    values["artifact"] = artifact_from_json(row["artifact"])
    return BuildTarget(**values)
