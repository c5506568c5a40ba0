"""The history of deployments: what each revision was, who made it and when."""

from typing import Any

from sqlalchemy import Connection, RowMapping, select

from controller.deployments.model import Revision
from controller.errors import InvalidRequest
from controller.store import schema
from controller.store.rows import Page, that_fit

TABLE = schema.revisions
COLUMNS = [TABLE.c[name] for name in Revision.__dataclass_fields__]


class RevisionTable:
    """Reads them; `DeploymentTable` adds them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, deployment_id: str, revision: int) -> Revision | None:
        found = self._many(TABLE.c.deployment_id == deployment_id, TABLE.c.revision == revision)
        return found[0] if found else None

    def page(self, deployment_id: str, page: Page) -> tuple[list[Revision], str]:
        """Newest first, and the token of the next page. Raises InvalidRequest for a foreign token."""
        conditions = [TABLE.c.deployment_id == deployment_id]
        if page.token:
            if not page.token.isascii() or not page.token.isdecimal():
                raise InvalidRequest("page.token", "not a token that this server made")
            conditions.append(TABLE.c.revision < int(page.token[:18]))
        found = self._many(*conditions, limit=page.limit + 1)
        shown = that_fit(found[: page.limit], lambda revision: len(revision.spec))
        return shown, str(shown[-1].revision) if len(found) > len(shown) else ""

    def _many(self, *conditions: Any, limit: int | None = None) -> list[Revision]:
        query = select(*COLUMNS).where(*conditions).order_by(TABLE.c.revision.desc()).limit(limit)
        return [_revision(row) for row in self._connection.execute(query).mappings()]


def _revision(row: RowMapping) -> Revision:
    return Revision(**row)
