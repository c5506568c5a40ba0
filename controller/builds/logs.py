"""Build logs: lines numbered from 1, read live while they are written, kept compressed when the build has ended."""

import asyncio
import contextlib
import gzip
import itertools
import shutil
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from controller.builds.cancelling import in_thread
from controller.builds.log_files import (
    BuildLogLine,
    LogReader,
    LogWriter,
    compress,
    decoded,
    encoded,
    part_path,
    uncompress,
)
from controller.errors import NotFound
from controller.files import sync_folder
from longshore.errors import Reason

log = structlog.get_logger()
__all__ = ["BuildLogLine", "BuildLogs"]

LONGEST_TEXT = 16 * 1024
MAX_BYTES = 16 * 2**20
# The newest lines of a log that is being written, for those who follow it closely: they need not look at the disk.
KEPT_IN_MEMORY = 256
# Those who follow a log look so often whether its build has ended, should nobody have told them.
LOOK_AGAIN = 10.0
PIECE = 256 * 1024
STORED_BATCH = 1000

Ended = Callable[[], Awaitable[bool]]


class BuildLogs:
    """The folder of all logs. Survives a kill of the process up to the last line that was written whole.

    A log has at most about `max_bytes`: of a longer one the head and the tail are kept, and a line says how many are
    left out between them. Numbers count all lines. Everything is called on the event loop.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, *, clear_up: bool = True) -> None:
        """`clear_up`: of what a kill left half done; not beside another process that writes there."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, LogWriter] = {}
        self._newest: dict[str, deque[BuildLogLine]] = {}
        self._waiters: dict[str, set[asyncio.Event]] = {}
        # Logs that are being compressed, and have not gone on meanwhile.
        self._finishing: set[str] = set()
        if clear_up:
            self._clear_up()

    def append(self, build_id: str, target: str, stream: str, text: str) -> None:
        """Writes one line and wakes those who follow. A log that was finished goes on. A disk that takes nothing loses
        lines and no more: the log shows where, and the controller's log says why."""
        try:
            writer = self._open.get(build_id) or self._begin(build_id)
        except OSError as error:
            # Written beside what the finished log has, the line would take its place.
            log.error("a finished log of a build cannot go on", build=build_id, line=text, error=str(error))
            return
        sound = not writer.trouble
        self._newest[build_id].append(writer.append(target, stream, text[:LONGEST_TEXT], time.time()))
        if sound and writer.trouble:
            log.error("lines of a build's log cannot be stored", build=build_id, error=writer.trouble)
        self.wake(build_id)

    def close(self, build_id: str) -> None:
        """No more lines for now; those who follow look whether the build has ended."""
        if (writer := self._open.pop(build_id, None)) is not None:
            writer.close()
        self._newest.pop(build_id, None)
        self.wake(build_id)

    async def finish(self, build_id: str) -> None:
        """The build has ended: its log is stored compressed, and those who follow it are told. Idempotent."""
        self.close(build_id)
        folder, packed = self._path(build_id), self._packed(build_id)
        if build_id in self._finishing or (packed.exists() and not folder.exists()):
            return
        self._finishing.add(build_id)
        temporary = packed.with_name(f".{packed.name}")
        try:
            await in_thread(compress, folder, temporary)
            # Not where a line has come meanwhile: whoever wrote it finishes the log again.
            if build_id in self._finishing:
                await self._replace(folder, temporary, packed)
        finally:
            temporary.unlink(missing_ok=True)
            self._finishing.discard(build_id)
        self.wake(build_id)

    async def _replace(self, folder: Path, temporary: Path, packed: Path) -> None:
        temporary.replace(packed)
        unwanted = folder.with_name(f".{folder.name}.done")
        if folder.exists():
            folder.rename(unwanted)
        sync_folder(self._folder)
        await in_thread(shutil.rmtree, unwanted, ignore_errors=True)

    def wake(self, build_id: str) -> None:
        for waiter in self._waiters.get(build_id, ()):
            waiter.set()

    async def read(
        self, build_id: str, from_number: int, follow: bool, ended: Ended, target: str = ""
    ) -> AsyncGenerator[BuildLogLine, None]:
        """Lines from a number on; with `follow` until `ended()` and all is read. With `target`, those of this target
        and those of the build as a whole. Raises NotFound where the log of an ended build is not kept any more."""
        await self._require(build_id, ended)
        wake = asyncio.Event()
        self._waiters.setdefault(build_id, set()).add(wake)
        reader = LogReader(self._path(build_id), from_number)
        try:
            while True:
                wake.clear()
                # Asked before reading: what was written before the end is then read.
                last_round = not follow or (build_id not in self._open and await ended())
                async for line in self._present(build_id, reader):
                    if target in ("", line.target) or not line.target:
                        yield line
                if last_round:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await wake.wait()
        finally:
            self._waiters[build_id].discard(wake)
            if not self._waiters[build_id]:
                del self._waiters[build_id]

    async def download(self, build_id: str, ended: Ended) -> AsyncIterator[bytes]:
        """The whole log as it is now, in pieces: gzip of JSON lines. Raises NotFound as `read`."""
        await self._require(build_id, ended)
        with contextlib.suppress(FileNotFoundError):
            if not self._path(build_id).exists():
                with self._packed(build_id).open("rb") as file:
                    while piece := await asyncio.to_thread(file.read, PIECE):
                        yield piece
                return
        packer = zlib.compressobj(wbits=31)
        async for line in self._present(build_id, LogReader(self._path(build_id), 1)):
            if piece := packer.compress(encoded(line)):
                yield piece
        yield packer.flush()

    def sizes(self) -> dict[str, int]:
        """Bytes of each log that has been finished, by build."""
        found = self._folder.glob("*.jsonl.gz")
        return {path.name.removesuffix(".jsonl.gz"): path.stat().st_size for path in found if path.name[0] != "."}

    def unfinished(self) -> list[str]:
        """Builds whose logs are not compressed."""
        return [path.name for path in self._folder.iterdir() if path.is_dir() and path.name[0] != "."]

    def remove(self, build_id: str) -> None:
        """Afterwards nothing of this log is kept; its build must have ended. Idempotent."""
        self.close(build_id)
        self._packed(build_id).unlink(missing_ok=True)
        shutil.rmtree(self._path(build_id), ignore_errors=True)

    async def _require(self, build_id: str, ended: Ended) -> None:
        if self._path(build_id).exists() or self._packed(build_id).exists() or not await ended():
            return
        raise NotFound(Reason.NO_SUCH_LOG, f"the log of build {build_id} is not kept any more")

    async def _present(self, build_id: str, reader: LogReader) -> AsyncIterator[BuildLogLine]:
        """What there is from the reader's number on."""
        while True:
            lines = self._from_memory(build_id, reader)
            if lines is None:
                try:
                    lines = reader.batch()
                except FileNotFoundError:
                    if self._path(build_id).exists():
                        # One of its files has just been left out.
                        continue
                    async for line in self._from_packed(build_id, reader):
                        yield line
                    return
            if not lines:
                return
            for line in lines:
                yield line

    def _from_memory(self, build_id: str, reader: LogReader) -> list[BuildLogLine] | None:
        """None where the disk has to be asked."""
        newest = self._newest.get(build_id)
        if not newest or reader.next < newest[0].number:
            return None
        lines = list(itertools.islice(newest, reader.next - newest[0].number, None))
        reader.skip(newest[-1].number + 1)
        return lines

    async def _from_packed(self, build_id: str, reader: LogReader) -> AsyncIterator[BuildLogLine]:
        try:
            file = gzip.open(self._packed(build_id), "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            while raw := await asyncio.to_thread(lambda: list(itertools.islice(file, STORED_BATCH))):
                for line in map(decoded, raw):
                    if line is not None and line.number >= reader.next:
                        reader.skip(line.number + 1)
                        yield line

    def _path(self, build_id: str) -> Path:
        return self._folder / build_id

    def _packed(self, build_id: str) -> Path:
        return self._folder / f"{build_id}.jsonl.gz"

    def _begin(self, build_id: str) -> LogWriter:
        self._finishing.discard(build_id)
        if not self._path(build_id).exists() and self._packed(build_id).exists():
            uncompress(self._packed(build_id), self._path(build_id))
        writer = self._open[build_id] = LogWriter(self._path(build_id), self._max_bytes)
        self._newest[build_id] = deque(maxlen=KEPT_IN_MEMORY)
        return writer

    def _clear_up(self) -> None:
        """What a kill left half done is gone, and logs of earlier versions lie as they do now."""
        for path in self._folder.glob(".*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self._folder.glob("*.jsonl"):
            (self._folder / path.stem).mkdir(exist_ok=True)
            path.rename(part_path(self._folder / path.stem, 1))
