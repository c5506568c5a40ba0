"""What the tags of specs name in the registry."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import Connection, delete, insert, select

from controller.builds.model import BuiltArtifact
from controller.store import schema

TAGS = schema.tags
# So many digests stand in one statement.
AT_A_TIME = 500


class TagTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def move(self, repository: str, tag: str, digest: str) -> None:
        """The tag names this artifact now, and nothing else any more."""
        self._connection.execute(delete(TAGS).where(TAGS.c.repository == repository, TAGS.c.tag == tag))
        self._connection.execute(insert(TAGS).values(repository=repository, tag=tag, digest=digest))

    def forget(self, repository: str, digest: str) -> None:
        """The artifact is gone, and with it whatever named it."""
        self._connection.execute(delete(TAGS).where(TAGS.c.repository == repository, TAGS.c.digest == digest))

    def of(self, artifacts: Collection[BuiltArtifact]) -> dict[tuple[str, str], tuple[str, ...]]:
        """The tags of those that have some, in the order of the alphabet, by (repository, digest)."""
        digests = list({artifact.digest for artifact in artifacts})
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for begin in range(0, len(digests), AT_A_TIME):
            query = select(TAGS).where(TAGS.c.digest.in_(digests[begin : begin + AT_A_TIME])).order_by(TAGS.c.tag)
            for row in self._connection.execute(query):
                found[row.repository, row.digest].append(row.tag)
        return {place: tuple(tags) for place, tags in found.items()}
