"""Now and then, what nothing needs any more is removed; what that is says `controller.housekeeping.plan`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from controller.builds.logs import BuildLogs
from controller.builds.materials_store import MaterialsStore
from controller.builds.model import RegistryAccess
from controller.builds.registry_session import RegistryRefused, RegistryUnreachable
from controller.builds.uploads import Content, UploadStore
from controller.housekeeping.artifacts import remove_artifact
from controller.housekeeping.journal import Journal
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import (
    DAY,
    Artifact,
    BuildRecord,
    Policy,
    Removal,
    Uses,
    deletable,
    needed_builds,
    plan_builds,
    plan_logs,
    plan_uploads,
)
from controller.store import Store, Transaction

log = structlog.get_logger()
# Between forgetting a build and removing its artifacts and bills of materials: an identical request may just have been
# answered with them.
GRACE = 15.0
# So often the registry frees space although nothing was removed: of pushes that were cut short there is no other trace.
COLLECT_EVERY = DAY
# The first round is after what a start does itself: ending what a killed controller left.
FIRST = 60.0
# While a disk is full, the next round comes as soon as this.
WHEN_FULL = 600.0


@dataclass(frozen=True)
class Estate:
    """What is kept in order. `collect` lets the registry free what nothing names any more; None where it is not ours.
    It is called only when nothing builds."""

    store: Store
    uploads: UploadStore
    logs: BuildLogs
    materials: MaterialsStore
    layers: LayerCache
    access: RegistryAccess
    journal: Journal
    collect: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Findings:
    """What would go now, as the rows and folders are."""

    builds: Removal
    uploads: tuple[Content, ...]
    logs: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class _Rows:
    builds: list[BuildRecord]
    uses: Uses
    needed_contents: set[str]


class Housekeeper:
    def __init__(self, estate: Estate, policy: Policy, interval: float, full: Callable[[], str]) -> None:
        """`interval` in seconds; `full`: "" or why the disk has no room, which brings the next round nearer."""
        self._estate = estate
        self._policy = policy
        self._interval = interval
        self._full = full
        self._collected = time.monotonic()

    async def run(self) -> None:
        """Until cancelled. A round that breaks is logged; the next one tries again."""
        await asyncio.sleep(min(FIRST, self._interval))
        while True:
            try:
                await self.tidy()
            except Exception:
                log.exception("housekeeping broke; the next round tries again")
            full = await asyncio.to_thread(self._full)
            await asyncio.sleep(min(WHEN_FULL, self._interval) if full else self._interval)

    async def look(self) -> Findings:
        """What a round would remove; removes nothing."""
        now = time.time()
        sizes = await asyncio.to_thread(self._estate.logs.sizes)
        contents = await asyncio.to_thread(lambda: list(self._estate.uploads.contents()))
        rows = await self._estate.store.transact(self._rows)
        return Findings(
            plan_builds(rows.builds, rows.uses, self._policy, now),
            tuple(plan_uploads(contents, rows.needed_contents, self._policy, now)),
            tuple(plan_logs(sizes, rows.builds, self._policy, now)),
            tuple(await self._estate.layers.unneeded(rows.builds, self._policy, now)),
        )

    async def tidy(self, grace: float = GRACE) -> None:
        """One round."""
        await self._finish_logs()
        findings = await self.look()
        forgotten = await self._forget(findings.builds)
        if forgotten or self._estate.journal.read():
            await asyncio.sleep(grace)
        await self._remove_materials()
        if await self._remove_artifacts() or time.monotonic() - self._collected > COLLECT_EVERY:
            await self._collect()
        await asyncio.to_thread(self._remove_uploads, findings.uploads)
        for build_id in findings.logs:
            self._estate.logs.remove(build_id)
            log.info("build log removed", build=build_id)
        rows = await self._estate.store.transact(self._rows)
        await self._estate.layers.tidy(rows.builds, self._policy, time.time())

    async def _finish_logs(self) -> None:
        """Compresses logs that a killed controller left as they were."""
        rows = await self._estate.store.transact(self._rows)
        ended = {build.id for build in rows.builds if build.ended}
        for build_id in self._estate.logs.unfinished():
            if build_id in ended:
                await self._estate.logs.finish(build_id)

    async def _forget(self, removal: Removal) -> bool:
        """Removes the records of builds, and their logs. Whether there were any."""
        if not removal.builds:
            return False
        self._estate.journal.add(removal.artifacts)
        for build_id in await self._estate.store.transact(lambda tx: self._remove_rows(tx, removal), frees=True):
            self._estate.logs.remove(build_id)
            log.info("build removed", build=build_id)
        return True

    async def _remove_materials(self) -> None:
        """Those of builds that are forgotten, and from which no other build has its artifact."""
        # Before the rows: a build that is added meanwhile is among them.
        kept = await asyncio.to_thread(self._estate.materials.builds)
        needed = await self._estate.store.transact(lambda tx: tx.keeping.described())
        for build_id in sorted(kept - needed):
            await asyncio.to_thread(self._estate.materials.remove, build_id)

    def _remove_rows(self, tx: Transaction, removal: Removal) -> list[str]:
        """Only what may still go: a deployment may have come to use one of them."""
        now = plan_builds(tx.keeping.builds(), tx.keeping.uses(), self._policy, time.time())
        gone = [build_id for build_id in removal.builds if build_id in set(now.builds)]
        tx.keeping.remove(gone)
        return gone

    async def _remove_artifacts(self) -> int:
        """Those that are noted. How many it removed."""
        noted = self._estate.journal.read()
        if not noted:
            return 0
        rows = await self._estate.store.transact(self._rows)
        free, waiting = deletable(noted, rows.builds, rows.uses)
        self._estate.journal.remove(noted - set(free) - set(waiting))
        return await self._remove_each(sorted(free))

    async def _remove_each(self, artifacts: list[Artifact]) -> int:
        """How many it removed. One that cannot be removed now is noted for the next round, and hinders no other."""
        removed, refused = 0, list[str]()
        for artifact in artifacts:
            try:
                removed += await self._remove_one(artifact)
            except RegistryRefused as error:
                refused.append(str(error))
            except RegistryUnreachable as error:
                log.warning("artifacts cannot be removed now", artifact=artifact.digest, error=str(error))
                break
            except Exception:
                log.exception("an artifact cannot be removed", repository=artifact.repository, digest=artifact.digest)
        if refused:
            log.warning("the registry refuses to remove artifacts", count=len(refused), first=refused[0])
        return removed

    async def _remove_one(self, artifact: Artifact) -> bool:
        """Asks the rows once more: removing those before took a while, in which it may have been built again."""
        if not await self._estate.store.transact(lambda tx: _may_go(tx, artifact)):
            return False
        await remove_artifact(artifact.repository, artifact.digest, self._estate.access)
        await self._estate.store.transact(lambda tx: tx.tags.forget(*artifact.place))
        self._estate.journal.remove([artifact])
        log.info("artifact removed", repository=artifact.repository, digest=artifact.digest)
        return True

    async def _collect(self) -> None:
        if self._estate.collect is None or await self._estate.store.transact(lambda tx: tx.keeping.building()):
            return
        self._collected = begin = time.monotonic()
        await self._estate.collect()
        log.info("the registry has freed what nothing names", seconds=round(time.monotonic() - begin, 1))

    def _remove_uploads(self, contents: tuple[Content, ...]) -> None:
        freed = 0
        for content in contents:
            if self._estate.uploads.remove(content.digest, content.last_used):
                freed += content.size
        self._estate.uploads.remove_partial(time.time() - self._policy.uploads_days * DAY)
        if contents:
            log.info("uploads removed", count=len(contents), bytes=freed)

    def _rows(self, tx: Transaction) -> _Rows:
        builds, uses = tx.keeping.builds(), tx.keeping.uses()
        return _Rows(builds, uses, tx.keeping.contents(needed_builds(builds, uses, self._policy.revisions_keep)))


def _may_go(tx: Transaction, artifact: Artifact) -> bool:
    """As `deletable` says, of one artifact and in a moment."""
    return not tx.keeping.building(artifact.project) and not tx.keeping.refers_to(*artifact.place)
