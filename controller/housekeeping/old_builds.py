"""Forgets builds, and removes from the registry what nothing refers to then."""

import asyncio
import time
from collections.abc import Callable

import structlog

from controller.builds.registry import get_manifest
from controller.builds.registry_session import RegistryRefused, RegistryUnreachable
from controller.housekeeping.artifacts import remove_artifact
from controller.housekeeping.estate import Estate
from controller.housekeeping.plan import DAY, Artifact, Removal, Rows, deletable
from controller.store import Transaction

log = structlog.get_logger()
# So often the registry frees space although nothing was removed: of pushes that were cut short there is no other trace.
COLLECT_EVERY = DAY

Plan = Callable[[Rows], Removal]


class OldBuilds:
    """`resting` of the calls: nothing is built meanwhile, on no machine, so that no build pushes what goes."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._collected = time.monotonic()
        # Whether something was removed that the registry has not freed yet.
        self._uncollected = False

    @property
    def collection_due(self) -> bool:
        """Whether the registry, where it is ours, is to free space."""
        overdue = time.monotonic() - self._collected > COLLECT_EVERY
        return self._estate.collect is not None and (self._uncollected or overdue)

    async def forget(self, plan: Plan, grace: float, *, resting: bool = False) -> bool:
        """Removes the records of the builds that the plan picks, and their logs; then their artifacts, and those that
        were noted before, with bills of materials. Whether there were any builds, and nothing is noted any more.

        `grace`: so many seconds are between the two, since an identical request may just have been answered with them.
        """
        removal = plan(await self._estate.store.transact(self._rows))
        if removal.builds:
            await asyncio.to_thread(self._estate.journal.add, removal.artifacts)
            gone = await self._estate.store.transact(lambda tx: self._remove_rows(tx, removal, plan), frees=True)
            for build_id in gone:
                self._estate.logs.remove(build_id)
                log.info("build removed", build=build_id)
        if removal.builds or self._estate.journal.read():
            await asyncio.sleep(grace)
        await self._remove_materials()
        return await self.remove_noted(resting=resting) and bool(removal.builds)

    async def collect(self, *, resting: bool = False) -> None:
        """The registry frees space, where that is due and nothing builds."""
        if self._estate.collect is None or not self.collection_due:
            return
        if not resting and await self._estate.store.transact(lambda tx: tx.keeping.building()):
            return
        self._collected = begin = time.monotonic()
        await self._estate.collect()
        self._uncollected = False
        log.info("the registry has freed what nothing names", seconds=round(time.monotonic() - begin, 1))

    def _rows(self, tx: Transaction) -> Rows:
        return Rows(tx.keeping.builds(), tx.keeping.uses())

    def _remove_rows(self, tx: Transaction, removal: Removal, plan: Plan) -> list[str]:
        """Only what may still go: a deployment may have come to use one of them."""
        now = set(plan(self._rows(tx)).builds)
        gone = [build_id for build_id in removal.builds if build_id in now]
        tx.keeping.remove(gone)
        return gone

    async def _remove_materials(self) -> None:
        """Those of builds that are forgotten, and from which no other build has its artifact."""
        # Before the rows: a build that is added meanwhile is among them.
        kept = await asyncio.to_thread(self._estate.materials.builds)
        needed = await self._estate.store.transact(lambda tx: tx.keeping.described())
        for build_id in sorted(kept - needed):
            await asyncio.to_thread(self._estate.materials.remove, build_id)

    async def remove_noted(self, *, resting: bool = False) -> bool:
        """Removes the artifacts that are noted. Whether nothing is noted any more."""
        noted = self._estate.journal.read()
        if not noted:
            return True
        rows = await self._estate.store.transact(self._rows)
        begun, pushing = deletable((each for each in noted if not each.looked_up), rows.builds, rows.uses)
        await self._look_up([*begun, *pushing] if resting else begun)
        noted = {artifact for artifact in self._estate.journal.read() if artifact.looked_up}
        free, waiting = deletable(noted, rows.builds, rows.uses)
        await asyncio.to_thread(self._estate.journal.remove, noted - set(free) - set(waiting))
        await self._remove_each(sorted([*free, *waiting] if resting else free), resting)
        return not self._estate.journal.read()

    async def _look_up(self, pushes: list[Artifact]) -> None:
        """Afterwards what lies under the tags of these pushes, which are over, is noted in their place."""
        for push in pushes:
            try:
                found = await get_manifest(push.repository, push.digest, self._estate.access)
            except RegistryRefused as error:
                log.warning("the registry does not say what was pushed", tag=push.digest, error=str(error))
            except RegistryUnreachable as error:
                log.warning("the registry cannot be asked what was pushed", tag=push.digest, error=str(error))
                break
            else:
                if found is not None:
                    await asyncio.to_thread(self._estate.journal.add, [push._replace(digest=found.digest)])
                await asyncio.to_thread(self._estate.journal.remove, [push])

    async def _remove_each(self, artifacts: list[Artifact], resting: bool) -> None:
        """One that cannot be removed now is noted for the next round, and hinders no other."""
        refused = list[str]()
        for artifact in artifacts:
            try:
                await self._remove_one(artifact, resting)
            except RegistryRefused as error:
                refused.append(str(error))
            except RegistryUnreachable as error:
                log.warning("artifacts cannot be removed now", artifact=artifact.digest, error=str(error))
                break
            except Exception:
                log.exception("an artifact cannot be removed", repository=artifact.repository, digest=artifact.digest)
        if refused:
            log.warning("the registry refuses to remove artifacts", count=len(refused), first=refused[0])

    async def _remove_one(self, artifact: Artifact, resting: bool) -> None:
        """Asks the rows once more: removing those before took a while, in which it may have been built again. No volume
        is pushed meanwhile: its row comes last."""
        async with self._estate.pushes.alone():
            if not await self._estate.store.transact(lambda tx: _may_go(tx, artifact, resting)):
                return
            await remove_artifact(artifact.repository, artifact.digest, self._estate.access)
        self._uncollected = True
        await self._estate.store.transact(lambda tx: tx.tags.forget(*artifact.place), frees=True)
        await asyncio.to_thread(self._estate.journal.remove, [artifact])
        log.info("artifact removed", repository=artifact.repository, digest=artifact.digest)


def _may_go(tx: Transaction, artifact: Artifact, resting: bool) -> bool:
    """As `deletable` says, of one artifact and in a moment."""
    # An index is put into the registry before its build has it, also while nothing is built.
    pushing = tx.keeping.joining(artifact.project) if resting else tx.keeping.building(artifact.project)
    return not pushing and not tx.keeping.refers_to(*artifact.place)
