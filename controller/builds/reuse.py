"""Answers an identical request with what an earlier one made, as long as the registry still has it."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from controller.builds import registry
from controller.builds.model import BuildState, BuildTarget, BuiltArtifact, RegistryAccess
from controller.builds.registry import RegistryUnreachable
from controller.store import Store, Transaction

log = structlog.get_logger()
# Seconds that the registry may take to say whether it has an artifact; building is the way without its answer.
PATIENCE = 3.0
# Seconds between two questions: CNCF Distribution answers with an error while somebody else gives the same manifest
# another tag, since it writes its links in place.
ASK_AGAIN = (0.05, 0.2)


class Reuse:
    """`hours`: how long after it was built an artifact is handed out again; 0 for never."""

    def __init__(self, store: Store, access: RegistryAccess, hours: float) -> None:
        self._store = store
        self._access = access
        self._hours = hours

    @property
    def enabled(self) -> bool:
        return self._hours > 0

    async def answer(self, targets: Mapping[str, BuildTarget]) -> dict[str, BuildTarget]:
        """Those of the targets, by key, that need no building: succeeded, with the artifact of an identical one."""
        keys = {key: target.cache_key for key, target in targets.items() if target.cache_key}
        if not keys or not self.enabled:
            return {}
        found = await self._store.transact(lambda tx: self._look_up(tx, keys))
        there = await asyncio.gather(*(self._is_there(made) for _, made in found.values()))
        now = time.time()
        return {
            key: _taken(targets[key], build_id, made, now)
            for (key, (build_id, made)), still in zip(found.items(), there, strict=True)
            if still
        }

    def _look_up(self, tx: Transaction, keys: Mapping[str, str]) -> dict[str, tuple[str, BuildTarget]]:
        since = time.time() - self._hours * 3600
        found = {key: tx.images.reusable(cache_key, since) for key, cache_key in keys.items()}
        return {key: made for key, made in found.items() if made is not None}

    async def _is_there(self, made: BuildTarget) -> bool:
        if made.artifact is None:
            return False
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(made.artifact)
        except (RegistryUnreachable, TimeoutError) as error:
            log.info(
                "the registry does not say whether it has an artifact", digest=made.artifact.digest, error=repr(error)
            )
            return False

    async def _ask(self, artifact: BuiltArtifact) -> bool:
        """Raises RegistryUnreachable."""
        for pause in ASK_AGAIN:
            with contextlib.suppress(RegistryUnreachable):
                return await registry.has_manifest(artifact.repository, artifact.digest, self._access)
            await asyncio.sleep(pause)
        return await registry.has_manifest(artifact.repository, artifact.digest, self._access)


def _taken(target: BuildTarget, build_id: str, made: BuildTarget, now: float) -> BuildTarget:
    return replace(
        target, state=BuildState.SUCCEEDED, reason="", message="", artifact=made.artifact, notes=made.notes,
        cached_from=build_id, started=target.started or now, ended=now, next_try=0.0,
    )  # fmt: skip


def reuse_line(target: BuildTarget) -> str:
    """What the log says of a target that was answered so."""
    made = target.artifact
    where = f": {made.repository}@{made.digest}" if made is not None else ""
    return f"an identical request was built before, by build {target.cached_from}; its artifact is taken{where}"
