"""Build logs: one file of JSON lines a build, numbered from 1, read live while it grows."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LONGEST_TEXT = 16 * 1024


@dataclass(frozen=True)
class BuildLogLine:
    """`target` is a target's key, empty for what concerns the build as a whole; time in seconds since the epoch."""

    number: int
    time: float
    target: str
    stream: str
    text: str


class BuildLogs:
    """The folder of all logs. Survives a kill of the process up to the last line that was written whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, tuple[BinaryIO, int]] = {}
        self._waiters: dict[str, set[asyncio.Event]] = {}

    def append(self, build_id: str, target: str, stream: str, text: str) -> None:
        """Writes one line and wakes those who follow."""
        file, last = self._open.get(build_id) or self._begin(build_id)
        entry = {"n": last + 1, "t": time.time(), "p": target, "s": stream, "x": text[:LONGEST_TEXT]}
        file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        file.flush()
        self._open[build_id] = (file, last + 1)
        self.wake(build_id)

    def close(self, build_id: str) -> None:
        """No more lines for now; those who follow look whether the build has ended."""
        if (entry := self._open.pop(build_id, None)) is not None:
            entry[0].close()
        self.wake(build_id)

    def wake(self, build_id: str) -> None:
        for waiter in self._waiters.get(build_id, ()):
            waiter.set()

    async def read(
        self, build_id: str, from_number: int, follow: bool, ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[BuildLogLine]:
        """Lines from a number on; with `follow` until `ended()` and all is read."""
        wake = asyncio.Event()
        self._waiters.setdefault(build_id, set()).add(wake)
        offset = 0
        try:
            while True:
                wake.clear()
                # Asked before reading: what was written before the end is then read.
                last_round = not follow or await ended()
                for line, end in self._lines(build_id, offset):
                    offset = end
                    if line.number >= from_number:
                        yield line
                if last_round:
                    return
                await wake.wait()
        finally:
            self._waiters[build_id].discard(wake)
            if not self._waiters[build_id]:
                del self._waiters[build_id]

    def _path(self, build_id: str) -> Path:
        return self._folder / f"{build_id}.jsonl"

    def _begin(self, build_id: str) -> tuple[BinaryIO, int]:
        path = self._path(build_id)
        last, whole = 0, 0
        for line, end in self._lines(build_id, 0):
            last, whole = line.number, end
        file = path.open("ab")
        file.truncate(whole)
        return file, last

    def _lines(self, build_id: str, offset: int) -> Iterator[tuple[BuildLogLine, int]]:
        """Whole lines from an offset on, each with the offset behind it."""
        try:
            file = self._path(build_id).open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                offset += len(raw)
                entry = json.loads(raw)
                yield BuildLogLine(entry["n"], entry["t"], entry["p"], entry["s"], entry["x"]), offset
