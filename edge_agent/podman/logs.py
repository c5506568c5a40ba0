"""Reads the log file that Podman's monitor writes (k8s-file), losing nothing when it is replaced at its size limit.

Podman's own followers lose lines then. A line of the file is `<time> <stream> <P|F> <text>`; P parts are joined up to
F.
"""

import asyncio
import collections
import os
from collections.abc import AsyncGenerator, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from edge_agent.runtime.backend import LogLine, LogQuery

CHUNK = 256 * 1024
BUSY_SECONDS = 0.01
QUIET_SECONDS = 0.2


class LogFile:
    """A position in a log. Holds the file open, so that what was in it before it was replaced is read to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._parts: dict[str, str] = {}
        self.removed = False

    def read(self) -> Iterator[LogLine]:
        """Lines written since the last call; at the end of the log, `removed` says whether there can be more."""
        while True:
            if self._file is None and not self._open():
                return
            yield from self._drain()
            # Only a file that is replaced or removed already is complete: look first, then drain once more.
            if not self._replaced():
                return
            yield from self._drain()
            self._close()

    def _open(self) -> bool:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self.removed = True
            return False
        return True

    def _drain(self) -> Iterator[LogLine]:
        assert self._file is not None
        while data := self._file.read(CHUNK):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if (complete := self._parse(line)) is not None:
                    yield complete

    def _replaced(self) -> bool:
        assert self._file is not None
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return True

    def _parse(self, line: bytes) -> LogLine | None:
        fields = line.decode(errors="replace").split(" ", 3)
        if len(fields) < 4:
            return None
        time, stream, tag, text = fields
        text = self._parts.pop(stream, "") + text
        if tag == "P":
            self._parts[stream] = text
            return None
        return LogLine(datetime.fromisoformat(time).timestamp(), stream, text)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._rest = b""

    close = _close


async def read_log(path: Path, query: LogQuery) -> AsyncGenerator[LogLine, None]:
    """What `DeployBackend.logs` promises, for one file."""
    log = LogFile(path)
    try:
        for line in await asyncio.to_thread(_first_lines, log, query):
            yield line
        while query.follow and not log.removed:
            pause = QUIET_SECONDS
            for line in log.read():
                pause = BUSY_SECONDS
                yield line
            await asyncio.sleep(pause)
    finally:
        log.close()


def _first_lines(log: LogFile, query: LogQuery) -> collections.deque[LogLine]:
    kept = (line for line in log.read() if line.time >= query.since)
    return collections.deque(kept, maxlen=query.tail or None)
