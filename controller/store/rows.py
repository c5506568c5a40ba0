"""How values lie in rows: pages, artifacts."""

import base64
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

    def position(self, scope: str = "") -> tuple[float, str] | None:
        """Creation time and id of the last entry of the page before. Raises InvalidRequest for a foreign token, and for
        one that was made for another `scope`."""
        if not self.token:
            return None
        created, identity = self._opened(scope)
        try:
            return float(created), str(identity)
        except (ValueError, TypeError, OverflowError) as error:
            raise _foreign() from error

    def pair(self, scope: str) -> tuple[str, str] | None:
        """The two ids of the last entry of the page before, of a list that is ordered by them. Raises as above."""
        if not self.token:
            return None
        first, second = self._opened(scope)
        return str(first), str(second)

    def _opened(self, scope: str) -> tuple[Any, Any]:
        try:
            first, second, *rest = json.loads(base64.urlsafe_b64decode(self.token.encode()))
            # Half a character can be in JSON, and in no database.
            f"{first}{second}".encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise _foreign() from error
        if rest != ([scope] if scope else []):
            text = "it is of a list with another filter; send the filter that it came with, or begin without a token"
            raise InvalidRequest("page.token", text)
        return first, second


def _foreign() -> InvalidRequest:
    return InvalidRequest("page.token", "not a token that this server made")


def that_fit(rows: Sequence[Row], size: Callable[[Row], int]) -> list[Row]:
    """The first rows, at least one, that fit into a message of which every client takes 4 MiB (gRPC's default)."""
    sizes = accumulate(map(size, rows))
    return [row for index, (row, total) in enumerate(zip(rows, sizes, strict=True)) if not index or total <= PAGE_BYTES]


def page_token(created: float, identity: str, scope: str = "") -> str:
    """`scope`: the filter for which alone the token is good."""
    return _token(created, identity, scope)


def position_token(first: str, second: str, scope: str) -> str:
    """For a list that is ordered by two ids."""
    return _token(first, second, scope)


def _token(first: float | str, second: str, scope: str) -> str:
    parts = [first, second, scope] if scope else [first, second]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def paged(query: Select[Any], table: Table, page: Page, order: str = "created", scope: str = "") -> Select[Any]:
    """Newest first, one entry more than the page holds, so that the caller knows whether there is another."""
    created: ColumnElement[Any] = table.c[order]
    identity: ColumnElement[Any] = table.c.id
    if (position := page.position(scope)) is not None:
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
