"""Archives that are being unpacked: in threads of their own, each archive once."""

import asyncio
import functools
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from controller.builds.archives import expand
from controller.builds.model import ContextFile
from controller.builds.uploads import UploadStore

# So many archives are unpacked at a time; more wait. Nothing else waits for them.
PARALLEL = 2
# The lists of files of the latest archives are kept, up to so many files.
MOST_KEPT = 200_000


class Expansions:
    """A large archive takes minutes. Whoever gave up waiting and asks again finds the work going on, or done."""

    def __init__(self, uploads: UploadStore) -> None:
        self._uploads = uploads
        self._threads = ThreadPoolExecutor(PARALLEL, "archives")
        self._running: dict[str, asyncio.Future[tuple[ContextFile, ...]]] = {}
        self._kept: OrderedDict[str, tuple[ContextFile, ...]] = OrderedDict()

    async def files(self, digest: str) -> tuple[ContextFile, ...]:
        """The files of an uploaded archive; their contents are in the uploads. Errors as those of `expand`."""
        kept = self._kept.get(digest)
        if kept is not None and await asyncio.to_thread(self._has_all, kept):
            self._keep(digest, kept)
            return kept
        running = self._running.get(digest)
        if running is None:
            work = functools.partial(expand, digest, self._uploads)
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
            self._running[digest] = running
            running.add_done_callback(functools.partial(self._done, digest))
        return await asyncio.shield(running)

    def _done(self, digest: str, running: asyncio.Future[tuple[ContextFile, ...]]) -> None:
        del self._running[digest]
        # Asked for here too, since nobody may wait any more.
        if not running.cancelled() and running.exception() is None:
            self._keep(digest, running.result())

    def _keep(self, digest: str, files: tuple[ContextFile, ...]) -> None:
        self._kept[digest] = files
        self._kept.move_to_end(digest)
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > MOST_KEPT:
            self._kept.popitem(last=False)

    def _has_all(self, files: tuple[ContextFile, ...]) -> bool:
        """Housekeeping removes contents that nobody needed for long."""
        return all(self._uploads.stat(file.digest).complete for file in files)
