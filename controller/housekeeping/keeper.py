"""Now and then, what nothing needs any more is removed; what that is says `controller.housekeeping.plan`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from controller.builds.uploads import Content
from controller.events.model import Project
from controller.housekeeping.estate import Estate
from controller.housekeeping.old_builds import OldBuilds
from controller.housekeeping.plan import (
    DAY,
    Artifact,
    BuildRecord,
    Policy,
    Removal,
    Rows,
    Uses,
    needed_builds,
    plan_builds,
    plan_logs,
    plan_room,
    plan_uploads,
    plan_volumes,
)
from controller.store import Transaction
from controller.volumes.model import VolumeVersion

log = structlog.get_logger()
# Between forgetting a build and removing its artifacts and bills of materials: an identical request may just have been
# answered with them.
GRACE = 15.0
# The first round is after what a start does itself: ending what a killed controller left.
FIRST = 60.0
# So often it is looked whether a disk has become full, which brings the next round nearer; while it is, there is one
# as often as this.
LOOK, WHEN_FULL = 30.0, 600.0
# What builds hinder from going waits for so long that a round finds none; then they wait for it.
LONGEST_HINDERED = DAY
# What was used within this time may be for a build that somebody is about to ask for.
FRESH = 3600.0


@dataclass(frozen=True)
class Findings:
    """What would go now, as the rows and folders are."""

    builds: Removal
    uploads: tuple[Content, ...]
    logs: tuple[str, ...]
    layers: tuple[str, ...]
    volumes: tuple[VolumeVersion, ...] = ()
    events: Mapping[Project, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Needs:
    builds: list[BuildRecord]
    uses: Uses
    contents: set[str]
    versions: list[VolumeVersion]


class Housekeeper:
    def __init__(self, estate: Estate, policy: Policy, interval: float) -> None:
        """`interval` in seconds."""
        self._estate = estate
        self._policy = policy
        self._interval = interval
        self._old_builds = OldBuilds(estate)
        # Since when something has waited in vain for a moment in which nothing builds.
        self._hindered_since: float | None = None

    async def run(self) -> None:
        """Until cancelled. A round that breaks is logged; the next one tries again."""
        await asyncio.sleep(min(FIRST, self._interval))
        while True:
            try:
                await self.tidy()
            except Exception:
                log.exception("housekeeping broke; the next round tries again")
            await self._pause()

    async def look(self) -> Findings:
        """What a round would remove; removes nothing."""
        now = time.time()
        sizes = await asyncio.to_thread(self._estate.logs.sizes)
        contents = await asyncio.to_thread(lambda: list(self._estate.uploads.contents()))
        needs = await self._estate.store.transact(self._needs)
        return Findings(
            plan_builds(needs.builds, needs.uses, self._policy, now),
            tuple(plan_uploads(contents, needs.contents, self._policy, now)),
            tuple(plan_logs(sizes, needs.builds, self._policy, now)),
            tuple(await self._estate.layers.unneeded(needs.builds, self._policy, now)),
            tuple(plan_volumes(needs.versions, needs.uses, self._policy, now)),
            await self._estate.store.transact(self._old_events),
        )

    async def tidy(self, grace: float = GRACE) -> None:
        """One round. What breaks in it is logged, and hinders nothing else: on a full disk there is always something
        that cannot be done, and something that can."""
        findings = await self.look()
        await self._guarded(self._finish_logs)
        await self._guarded(partial(self._remove_uploads, findings.uploads))
        await self._guarded(partial(self._remove_logs, findings.logs))
        await self._guarded(partial(self._forget_volumes, findings.volumes))
        await self._guarded(partial(self._trim_events, findings.events))
        await self._guarded(partial(self._old_builds.forget, self._plan_old, grace))
        if await asyncio.to_thread(self._lacks_room) or self._is_hindered_too_long():
            await self._guarded(partial(self._tidy_at_rest, grace))
        else:
            await self._guarded(self._tidy_layers)
            await self._guarded(self._old_builds.collect)
        self._note_hindrance()

    async def _forget_volumes(self, versions: tuple[VolumeVersion, ...]) -> None:
        """Forgets those that may still go; their content goes with what is noted."""
        if not versions:
            return
        noted = [Artifact(each.project.user_id, each.project.project_id, *each.place) for each in versions]
        await asyncio.to_thread(self._estate.journal.add, noted)
        for each in await self._estate.store.transact(partial(self._remove_versions, versions), frees=True):
            log.info("version of a volume removed", volume=each.name, digest=each.digest)

    def _old_events(self, tx: Transaction) -> dict[Project, int]:
        """How many of each log that has some."""
        old = {project: len(tx.events.old(project, *self._events_kept())) for project in tx.events.projects()}
        return {project: count for project, count in old.items() if count}

    async def _trim_events(self, projects: Iterable[Project]) -> None:
        """A log at a time: others need the database meanwhile."""
        before, keep = self._events_kept()
        for project in projects:
            work = partial(_trim, project=project, before=before, keep=keep)
            gone = await self._estate.store.transact(work, frees=True)
            log.info("old events removed", user=project.user_id, project=project.project_id, events=gone)

    def _events_kept(self) -> tuple[float, int]:
        """From when on, and how many of the newest whatever their age."""
        return time.time() - self._policy.events_days * DAY, self._policy.events_keep_last

    def _remove_versions(self, noted: tuple[VolumeVersion, ...], tx: Transaction) -> list[VolumeVersion]:
        """Of these only, since the content of others is not noted. A deployment may have come to use one meanwhile."""
        now = plan_volumes(tx.volumes.all(), tx.keeping.uses(), self._policy, time.time())
        gone = [version for version in noted if version in now]
        tx.volumes.remove([each.id for each in gone])
        return gone

    async def _guarded(self, part: Callable[[], Awaitable[object]]) -> None:
        try:
            await part()
        except Exception:
            log.exception("a part of housekeeping broke; the next round tries again")

    async def _tidy_at_rest(self, grace: float) -> None:
        """What builds hinder; and what is young, for as long as there is no room."""
        await self._guarded(self._spare_uploads)
        async with self._estate.builders.resting():
            await self._guarded(self._tidy_layers)
            rows = await self._estate.store.transact(self._needs)
            await self._guarded(partial(self._estate.layers.make_room, rows.builds, self._estate.space.lacks))
            await self._guarded(partial(self._free_registry, grace))

    async def _tidy_layers(self) -> None:
        needs = await self._estate.store.transact(self._needs)
        await self._estate.layers.tidy(needs.builds, self._policy, time.time())

    async def _free_registry(self, grace: float) -> None:
        """The registry frees what it can; then builds that nothing needs are forgotten, for as long as its disk has no
        room. Only while nothing builds."""
        emptied = await self._old_builds.remove_noted(resting=True)
        await self._old_builds.collect(resting=True)
        # Of a registry that does not do as it is asked, nobody knows what forgetting more would bring.
        while emptied and (missing := await asyncio.to_thread(self._estate.space.missing, self._estate.registry)):
            emptied = await self._old_builds.forget(partial(self._plan_young, missing), grace, resting=True)
            await self._old_builds.collect(resting=True)

    async def _spare_uploads(self) -> None:
        """Files that no build needs, oldest use first, for as long as their disk has no room."""
        uploads, lacks = self._estate.uploads, self._estate.space.lacks
        contents = await asyncio.to_thread(lambda: sorted(uploads.contents(), key=lambda each: each.last_used))
        needs = await self._estate.store.transact(self._needs)
        fresh = time.time() - FRESH
        if await asyncio.to_thread(lacks, uploads.folder):
            await asyncio.to_thread(uploads.remove_partial, fresh)
        for content in contents:
            if not await asyncio.to_thread(lacks, uploads.folder):
                return
            if content.digest not in needs.contents and content.last_used < fresh:
                await asyncio.to_thread(self._remove_uploads_now, (content,))

    async def _finish_logs(self) -> None:
        """Compresses logs that a killed controller left as they were."""
        needs = await self._estate.store.transact(self._needs)
        ended = {build.id for build in needs.builds if build.ended}
        for build_id in self._estate.logs.unfinished():
            if build_id in ended:
                await self._estate.logs.finish(build_id)

    async def _remove_logs(self, build_ids: tuple[str, ...]) -> None:
        for build_id in build_ids:
            self._estate.logs.remove(build_id)
            log.info("build log removed", build=build_id)

    async def _remove_uploads(self, contents: tuple[Content, ...]) -> None:
        await asyncio.to_thread(self._remove_uploads_now, contents)
        before = time.time() - self._policy.uploads_days * DAY
        await asyncio.to_thread(self._estate.uploads.remove_partial, before)

    def _remove_uploads_now(self, contents: tuple[Content, ...]) -> None:
        removed = [each for each in contents if self._estate.uploads.remove(each.digest, each.last_used)]
        if removed:
            log.info("uploads removed", count=len(removed), bytes=sum(each.size for each in removed))

    def _plan_old(self, rows: Rows) -> Removal:
        return plan_builds(rows.builds, rows.uses, self._policy, time.time())

    def _plan_young(self, missing: int, rows: Rows) -> Removal:
        return plan_room(rows.builds, rows.uses, self._policy, missing)

    def _needs(self, tx: Transaction) -> _Needs:
        builds, uses = tx.keeping.builds(), tx.keeping.uses()
        contents = tx.keeping.contents(needed_builds(builds, uses, self._policy.revisions_keep))
        return _Needs(builds, uses, contents, tx.volumes.all())

    def _lacks_room(self) -> bool:
        estate = self._estate
        return any(map(estate.space.lacks, (estate.uploads.folder, estate.registry, *estate.layers.folders)))

    def _is_hindered_too_long(self) -> bool:
        since = self._hindered_since
        return since is not None and time.monotonic() - since >= LONGEST_HINDERED

    def _note_hindrance(self) -> None:
        estate = self._estate
        hindered = estate.layers.hindered or estate.builders.untidy or self._old_builds.collection_due
        if not (hindered and estate.builders.busy):
            self._hindered_since = None
        elif self._hindered_since is None:
            self._hindered_since = time.monotonic()

    async def _pause(self) -> None:
        """Until the next round: the interval, or less where a disk has no room."""
        began = time.monotonic()
        was_full = await asyncio.to_thread(self._estate.space.condition)
        while (passed := time.monotonic() - began) < self._interval:
            full = await asyncio.to_thread(self._estate.space.condition)
            if full and (not was_full or passed >= WHEN_FULL):
                return
            was_full = full
            await asyncio.sleep(min(LOOK, self._interval - passed))


def _trim(tx: Transaction, project: Project, before: float, keep: int) -> int:
    return tx.events.trim(project, before, keep)
