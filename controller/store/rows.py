"""How values lie in rows: pages, artifacts."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, Table, and_, or_

from controller.builds.model import ArtifactKind, BuiltArtifact
from controller.errors import InvalidRequest
from controller.volumes.model import PinnedVolume

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
PAGE_BYTES = 2 * 2**20
Row = TypeVar("Row")


@dataclass(frozen=True)
class Page:
    """What a caller asks of a list: at most `size` entries, after the one that `token` names."""

    size: int = 0
    token: str = ""

    @property
    def limit(self) -> int:
        return min(self.size, LARGEST_PAGE) if self.size > 0 else DEFAULT_PAGE

    def position(self) -> tuple[float, str] | None:
        """Creation time and id of the last entry of the page before. Raises InvalidRequest for a foreign token."""
        if not self.token:
            return None
        try:
            created, identity = json.loads(base64.urlsafe_b64decode(self.token.encode()))
            return float(created), str(identity)
        except (ValueError, TypeError, binascii.Error) as error:
            raise InvalidRequest("page.token", "not a token that this server made") from error


def that_fit(rows: Sequence[Row], size: Callable[[Row], int]) -> list[Row]:
    """The first rows, at least one, that fit into a message of which every client takes 4 MiB (gRPC's default)."""
    sizes = accumulate(map(size, rows))
    return [row for index, (row, total) in enumerate(zip(rows, sizes, strict=True)) if not index or total <= PAGE_BYTES]


def page_token(created: float, identity: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([created, identity]).encode()).decode()


def paged(query: Select[Any], table: Table, page: Page, order: str = "created") -> Select[Any]:
    """Newest first, one entry more than the page holds, so that the caller knows whether there is another."""
    created: ColumnElement[Any] = table.c[order]
    identity: ColumnElement[Any] = table.c.id
    if (position := page.position()) is not None:
        query = query.where(or_(created < position[0], and_(created == position[0], identity < position[1])))
    return query.order_by(created.desc(), identity.desc()).limit(page.limit + 1)


def artifact_to_json(artifact: BuiltArtifact | None) -> dict[str, Any] | None:
    return None if artifact is None else dict(vars(artifact))


def volumes_to_json(volumes: Sequence[PinnedVolume]) -> list[dict[str, Any]] | None:
    return [dict(vars(volume)) for volume in volumes] or None


def volumes_from_json(value: list[dict[str, Any]] | None) -> tuple[PinnedVolume, ...]:
    return tuple(PinnedVolume(**volume) for volume in value or ())


def artifact_from_json(value: dict[str, Any] | None) -> BuiltArtifact | None:
    return None if value is None else BuiltArtifact(**{**value, "kind": ArtifactKind(value["kind"])})
