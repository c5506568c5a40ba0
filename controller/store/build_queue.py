"""What of the builds waits, runs, and is due. The queue is these queries: a killed controller finds it as it was."""

from typing import Any

from sqlalchemy import Connection, Select, case, delete, func, insert, select

from controller.builds.model import ArtifactKind, BuildState
from controller.builds.order import Load, Waiting
from controller.store import schema

BUILDS = schema.builds
TARGETS = schema.build_targets
TURNS = schema.build_turns
BEGUN = (BuildState.PREPARING, BuildState.BUILDING, BuildState.PUSHING)
KINDS = {kind.value: kind for kind in ArtifactKind}
# In the order of the fields of Waiting.
COLUMNS = (
    TARGETS.c.build_id, TARGETS.c.key, BUILDS.c.user_id, TARGETS.c.profile, TARGETS.c.kind, BUILDS.c.created,
    TARGETS.c.position, TARGETS.c.cache_key,
)  # fmt: skip


class BuildQueueTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def waiting(self, reason: str | None = None) -> list[Waiting]:
        """All targets that are queued, those included whose next try is later; with `reason`, those that bear it."""
        query = _of_targets().where(TARGETS.c.state == BuildState.QUEUED)
        return self._waiting(query if reason is None else query.where(TARGETS.c.reason == reason))

    def due(self, now: float, each: int, alike: bool = False) -> list[Waiting]:
        """Targets that wait and whose time has come: of each user, profile and kind the oldest ones, at most `each`,
        and, without `alike`, only the oldest of those that are identical."""
        age = (BUILDS.c.created, TARGETS.c.build_id, TARGETS.c.position)
        group = (BUILDS.c.user_id, TARGETS.c.profile, TARGETS.c.kind)
        # Without a key it is like no other.
        same = case((TARGETS.c.cache_key == "", TARGETS.c.build_id + "/" + TARGETS.c.key), else_=TARGETS.c.cache_key)
        among_same = func.row_number().over(partition_by=(*group, same), order_by=age).label("among_same")
        due = _of_targets(among_same).where(TARGETS.c.state == BuildState.QUEUED, TARGETS.c.next_try <= now).subquery()
        place = func.row_number().over(
            partition_by=(due.c.user_id, due.c.profile, due.c.kind),
            order_by=(due.c.created, due.c.build_id, due.c.position),
        )
        looked_at = select(*due.c, place.label("place"))
        ranked = (looked_at if alike else looked_at.where(due.c.among_same == 1)).subquery()
        return self._waiting(select(ranked).where(ranked.c.place <= each))

    def next_due(self, now: float) -> float | None:
        """When the time of a target comes that waits for its next try; None where none does."""
        query = select(func.min(TARGETS.c.next_try))
        value: float | None = self._connection.scalar(
            query.where(TARGETS.c.state == BuildState.QUEUED, TARGETS.c.next_try > now)
        )
        return value

    def unfinished(self) -> list[tuple[str, str]]:
        """(build id, target's key) of targets that a controller had begun and not ended."""
        query = select(TARGETS.c.build_id, TARGETS.c.key).where(TARGETS.c.state.in_(BEGUN))
        return [(row.build_id, row.key) for row in self._connection.execute(query)]

    def load(self) -> Load:
        """What runs now, and who was served when."""
        query = select(BUILDS.c.user_id, func.count()).join(TARGETS, TARGETS.c.build_id == BUILDS.c.id)
        counts = self._connection.execute(query.where(TARGETS.c.state.in_(BEGUN)).group_by(BUILDS.c.user_id))
        return Load({row[0]: row[1] for row in counts}, self.served())

    def served(self) -> dict[str, float]:
        """When a target of each user began last."""
        return {row[0]: row[1] for row in self._connection.execute(select(TURNS.c.user_id, TURNS.c.served))}

    def serve(self, user_id: str, now: float) -> None:
        """A target of this user begins."""
        self._connection.execute(delete(TURNS).where(TURNS.c.user_id == user_id))
        self._connection.execute(insert(TURNS).values(user_id=user_id, served=now))

    def to_join(self, now: float) -> list[str]:
        """Ids of builds whose images are to be joined now, the one that waits longest first."""
        due = select(BUILDS.c.id).where(BUILDS.c.join_next > 0, BUILDS.c.join_next <= now)
        return list(self._connection.scalars(due.order_by(BUILDS.c.join_next)))

    def next_join(self) -> float | None:
        """When images of some build are to be joined next; None where nothing is left to join."""
        value: float | None = self._connection.scalar(
            select(func.min(BUILDS.c.join_next)).where(BUILDS.c.join_next > 0)
        )
        return value

    def _waiting(self, query: Select[Any]) -> list[Waiting]:
        # By place and not by name, since there may be very many.
        rows = self._connection.execute(query)
        return [Waiting(row[0], row[1], row[2], row[3], KINDS[row[4]], row[5], row[6], row[7]) for row in rows]


def _of_targets(*more: Any) -> Select[Any]:
    return select(*COLUMNS, *more).join(BUILDS, BUILDS.c.id == TARGETS.c.build_id)
