"""The event log: append-only, numbered in each project without gaps."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, or_, select

from controller.events.model import Event, EventKind, NewEvent, Project
from controller.store import schema
from controller.store.signals import EventsAppended, Signal

TABLE = schema.events
PAGE = 500


class EventTable:
    def __init__(self, connection: Connection, signals: list[Signal]) -> None:
        self._connection = connection
        self._signals = signals

    def append(self, event: NewEvent) -> int:
        """Appends and answers the number. One writer at a time, so that numbers have the order of commits."""
        number = self.last_number(event.project) + 1
        values = {key: value for key, value in vars(event).items() if key != "project"}
        values["kind"] = event.kind.value
        values["occurred"] = event.occurred or time.time()
        self._connection.execute(
            insert(TABLE).values(
                user_id=event.project.user_id,
                project_id=event.project.project_id,
                number=number,
                time=time.time(),
                **values,
            )
        )
        self._signals.append(EventsAppended(event.project))
        return number

    def last_number(self, project: Project) -> int:
        """0 for a project without events."""
        query = select(func.max(TABLE.c.number)).where(*_of(project))
        return int(self._connection.scalar(query) or 0)

    def oldest_number(self, project: Project) -> int:
        """The first number that is left; 0 for a project without events."""
        query = select(func.min(TABLE.c.number)).where(*_of(project))
        return int(self._connection.scalar(query) or 0)

    def after(
        self, project: Project, number: int, deployment_id: str = "", build_ids: Sequence[str] = ()
    ) -> tuple[list[Event], int]:
        """A page of the events that follow `number`, in order, and the number up to which the log was searched."""
        last = self.last_number(project)
        query = select(TABLE).where(*_of(project), TABLE.c.number > number)
        if deployment_id or build_ids:
            # An empty id is no filter: it would let the events of all other builds through.
            of_deployment = [TABLE.c.deployment_id == deployment_id] if deployment_id else []
            query = query.where(or_(TABLE.c.build_id.in_(build_ids), *of_deployment))
        rows = self._connection.execute(query.order_by(TABLE.c.number).limit(PAGE)).mappings().all()
        events = [_event(row) for row in rows]
        return events, events[-1].number if len(events) == PAGE else max(last, number)


def _of(project: Project) -> tuple[Any, Any]:
    return TABLE.c.user_id == project.user_id, TABLE.c.project_id == project.project_id


def _event(row: RowMapping) -> Event:
    values = {key: row[key] for key in NewEvent.__dataclass_fields__ if key not in ("project", "kind")}
    project = Project(row["user_id"], row["project_id"])
    return Event(row["number"], row["time"], NewEvent(project=project, kind=EventKind(row["kind"]), **values))
