"""The event log: append-only, numbered in each project without gaps."""

import time
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select

from controller.events.model import Event, EventKind, NewEvent, Project, Wanted
from controller.store import schema
from controller.store.signals import EventsAppended, Signal

TABLE = schema.events
PAGE = 500
ALL = Wanted()


class EventTable:
    def __init__(self, connection: Connection, signals: list[Signal]) -> None:
        self._connection = connection
        self._signals = signals

    def append(self, event: NewEvent) -> int:
        """Appends and answers the number. One writer at a time, so that numbers have the order of commits."""
        number = self.last_number(event.project) + 1
        values = {key: value for key, value in vars(event).items() if key != "project"}
        values.update(kind=event.kind.value, last_lines=list(event.last_lines) or None)
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

    def projects(self) -> list[Project]:
        """All that have a log."""
        query = select(TABLE.c.user_id, TABLE.c.project_id).distinct()
        return [Project(*row) for row in self._connection.execute(query)]

    def old(self, project: Project, before: float, keep_last: int) -> range:
        """Numbers of the log's beginning as far as it is older than `before`. So many of the newest are not among them,
        one at least: the next number follows from it."""
        young = self._connection.scalar(select(func.min(TABLE.c.number)).where(*_of(project), TABLE.c.time >= before))
        last = self.last_number(project)
        cut = min(last if young is None else young - 1, last - max(1, keep_last))
        return range(self.oldest_number(project), cut + 1)

    def trim(self, project: Project, before: float, keep_last: int) -> int:
        """Removes what is old, and answers how many events that were."""
        numbers = self.old(project, before, keep_last)
        self._connection.execute(delete(TABLE).where(*_of(project), TABLE.c.number < numbers.stop))
        return len(numbers)

    def after(self, project: Project, number: int, only: Wanted = ALL) -> tuple[list[Event], int]:
        """A page of the events that follow `number`, in order, and the number up to which the log was searched."""
        last = self.last_number(project)
        query = select(TABLE).where(*_of(project), TABLE.c.number > number, *_conditions(only))
        rows = self._connection.execute(query.order_by(TABLE.c.number).limit(PAGE)).mappings().all()
        events = [_event(row) for row in rows]
        return events, events[-1].number if len(events) == PAGE else max(last, number)


def _of(project: Project) -> tuple[Any, Any]:
    return TABLE.c.user_id == project.user_id, TABLE.c.project_id == project.project_id


def _conditions(only: Wanted) -> list[Any]:
    found: list[Any] = []
    if only.deployment_id or only.build_ids:
        # An empty id is no filter: it would let the events of all other builds through.
        of_deployment = [TABLE.c.deployment_id == only.deployment_id] if only.deployment_id else []
        found.append(or_(TABLE.c.build_id.in_(only.build_ids), *of_deployment))
    if only.device_id:
        found.append(TABLE.c.device_id == only.device_id)
    if only.kinds:
        found.append(TABLE.c.kind.in_([kind.value for kind in only.kinds]))
    if only.states:
        found.append(TABLE.c.state.in_(only.states))
    return found


def _event(row: RowMapping) -> Event:
    values = {key: row[key] for key in NewEvent.__dataclass_fields__ if key not in ("project", "kind")}
    values["last_lines"] = tuple(row["last_lines"] or ())
    project = Project(row["user_id"], row["project_id"])
    return Event(row["number"], row["time"], NewEvent(project=project, kind=EventKind(row["kind"]), **values))
