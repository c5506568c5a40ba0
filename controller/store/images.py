"""The artifacts that builds have left in the registry."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, exists, or_, select

from controller.builds.model import Build, BuildState, BuildTarget, BuiltArtifact
from controller.errors import InvalidRequest
from controller.events.model import Project
from controller.store import schema
from controller.store.builds import builds_from_rows, target_from_row
from controller.store.keeping import KeepingTable
from controller.store.rows import Page, page_token
from controller.store.tags import TagTable

BUILDS = schema.builds
TARGETS = schema.build_targets
ORIGINS = BUILDS.alias("origins")


@dataclass(frozen=True)
class Image:
    """An artifact and the build that made it. `target` is empty for an image index. `tags` are those of specs that name
    it now."""

    build: Build
    target: str
    artifact: BuiltArtifact
    in_use: bool
    tags: tuple[str, ...] = ()


class ImageTable:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reusable(self, cache_key: str, since: float) -> tuple[str, BuildTarget] | None:
        """The newest target that succeeded since then by building for this key, and its build's id."""
        query = select(TARGETS).where(
            TARGETS.c.cache_key == cache_key, TARGETS.c.ended >= since, TARGETS.c.state == BuildState.SUCCEEDED,
            TARGETS.c.cached_from == "", TARGETS.c.artifact.is_not(None),
        )  # fmt: skip
        row = self._connection.execute(query.order_by(TARGETS.c.ended.desc())).mappings().first()
        return None if row is None else (row["build_id"], target_from_row(row))

    def page(self, project: Project | None, user_id: str, page: Page, revisions_keep: int) -> tuple[list[Image], str]:
        """Newest build first, of one project or of one user ("" for all); and the token of the next page.

        `revisions_keep`: to so many of its last revisions a deployment may return.
        """
        used, shown = KeepingTable(self._connection).used_artifacts(revisions_keep), list[Image]()
        created, build_id, skip = _position(page)
        for build in self._builds(project, user_id, created, build_id, page.limit + 1):
            images = [
                Image(build, key, made, (made.repository, made.digest) in used) for key, made in self._artifacts(build)
            ]
            passed = skip if build.id == build_id else 0
            for number, image in enumerate(images[passed:], start=passed):
                if len(shown) == page.limit:
                    return self._tagged(shown), page_token(build.created, f"{build.id}/{number}")
                shown.append(image)
        return self._tagged(shown), ""

    def _tagged(self, images: list[Image]) -> list[Image]:
        tags = TagTable(self._connection).of([image.artifact for image in images])
        return [
            replace(image, tags=tags.get((image.artifact.repository, image.artifact.digest), ())) for image in images
        ]

    def _builds(
        self, project: Project | None, user_id: str, created: float, build_id: str, limit: int
    ) -> Iterator[Build]:
        """Builds with artifacts, from the one at this position on (`build_id` "": from the newest)."""
        # What another build made is shown with that one, as long as it is kept.
        origins = select(ORIGINS.c.id)
        own = or_(TARGETS.c.cached_from == "", TARGETS.c.cached_from.not_in(origins))
        succeeded = exists().where(TARGETS.c.build_id == BUILDS.c.id, TARGETS.c.artifact.is_not(None), own)
        query: Select[Any] = select(BUILDS).where(or_(succeeded, BUILDS.c.image_index.is_not(None)))
        if build_id:
            here = and_(BUILDS.c.created == created, BUILDS.c.id <= build_id)
            query = query.where(or_(BUILDS.c.created < created, here))
        if project is not None:
            query = query.where(BUILDS.c.user_id == project.user_id, BUILDS.c.project_id == project.project_id)
        if user_id:
            query = query.where(BUILDS.c.user_id == user_id)
        rows: list[RowMapping] = list(
            self._connection.execute(
                query.order_by(BUILDS.c.created.desc(), BUILDS.c.id.desc()).limit(limit)
            ).mappings()
        )
        yield from builds_from_rows(self._connection, rows)

    def _artifacts(self, build: Build) -> Iterator[tuple[str, BuiltArtifact]]:
        """Target's key and artifact of all that is to be shown with this build; "" for the index."""
        if build.image_index is not None:
            yield "", build.image_index
        taken = {target.cached_from for target in build.targets if target.cached_from}
        kept = set(self._connection.scalars(select(BUILDS.c.id).where(BUILDS.c.id.in_(taken)))) if taken else set()
        for target in build.targets:
            if target.artifact is not None and target.cached_from not in kept:
                yield target.key, target.artifact


def _position(page: Page) -> tuple[float, str, int]:
    """Creation time and id of the build at which the page begins, and how many of its artifacts were shown before."""
    if (position := page.position()) is None:
        return 0.0, "", 0
    build_id, _, number = position[1].rpartition("/")
    if not build_id or not number.isdecimal():
        raise InvalidRequest("page.token", "not a token that this server made")
    return position[0], build_id, int(number)
