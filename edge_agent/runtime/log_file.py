"""Reads the log file of an instance, losing nothing when it is replaced at its size limit.

A line of the file is `<time> <stream> <P|F> <text>`; P parts are joined up to F. Podman's monitor writes it so
(k8s-file), and Podman's own followers lose lines when it is replaced; so does the bare-metal agent's supervisor, which
keeps the file before under the same name with ".1" behind it.
"""

import asyncio
import collections
import contextlib
import os
from collections.abc import AsyncGenerator, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from edge_agent.runtime.backend import LogLine, LogQuery
from edge_agent.runtime.log_tail import seek_tail

CHUNK = 256 * 1024
BUSY_SECONDS = 0.01
QUIET_SECONDS = 0.2
# Lines that are handed on between two looks at the file, should whoever takes them never pause.
LOOK_EVERY = 1000
# Files that were replaced and not read yet; each takes up to the size limit of a log on the disk while it is held.
MOST_FILES = 8


class LogFile:
    """A position in a log. Holds each file of it open from when it is seen, so that what is in one that was replaced is
    read to its end, however late."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The file that is being read and those that replaced it since, in order.
        self._files: collections.deque[BinaryIO] = collections.deque()
        self._newest = 0
        self._rest = b""
        self._parts: dict[str, str] = {}
        self._gone = False

    @property
    def removed(self) -> bool:
        """Whether there is nothing more to come."""
        return self._gone and not self._files

    def look(self) -> None:
        """Opens the file that has replaced the newest one, if there is one."""
        try:
            if self._path.stat().st_ino == self._newest:
                return
            fresh = self._path.open("rb")
        except FileNotFoundError:
            self._gone = True
            return
        inode = os.fstat(fresh.fileno()).st_ino
        # Opened after its successor: a file that is replaced in between is then seen once, not twice or never.
        self._open_older({self._newest, inode})
        self._newest = inode
        self._files.append(fresh)
        if len(self._files) > MOST_FILES:
            self._drop_oldest()

    def _open_older(self, known: Collection[int]) -> None:
        """The file that was before the newest one, where that is kept and not known yet."""
        with contextlib.suppress(FileNotFoundError):
            older = self._path.with_name(f"{self._path.name}.1").open("rb")
            if os.fstat(older.fileno()).st_ino in known:
                older.close()
            else:
                self._files.append(older)

    def skip_to_tail(self, query: LogQuery) -> None:
        """Passes over what comes before the tail that is asked for, or most of it. For a log of which nothing was read
        yet."""
        self.look()
        if self._files:
            for _ in range(seek_tail(self._files, query.tail, pending=query.follow)):
                self._drop_oldest()

    def read(self) -> Iterator[LogLine]:
        """Lines written since the last call."""
        self.look()
        while self._files:
            # Nothing is written any more to a file that was replaced or removed before it is read on.
            complete = self._gone or len(self._files) > 1
            file = self._files[0]
            yield from self._drain(file)
            if not complete:
                return
            if self._files and self._files[0] is file:
                self._drop_oldest()
            self.look()

    def _drain(self, file: BinaryIO) -> Iterator[LogLine]:
        while not file.closed and (data := file.read(CHUNK)):
            self.look()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if (complete := self._parse(line)) is not None:
                    yield complete

    def _parse(self, line: bytes) -> LogLine | None:
        """None for a part of a line, and for what a power cut or a full disk has spoiled."""
        fields = line.decode(errors="replace").split(" ", 3)
        if len(fields) < 4:
            return None
        time, stream, tag, text = fields
        text = self._parts.pop(stream, "") + text
        if tag == "P":
            self._parts[stream] = text
            return None
        try:
            return LogLine(datetime.fromisoformat(time).timestamp(), stream, text)
        except (ValueError, OverflowError):
            return None

    def _drop_oldest(self) -> None:
        self._files.popleft().close()
        self._rest = b""

    def close(self) -> None:
        while self._files:
            self._drop_oldest()


async def read_log(path: Path, query: LogQuery) -> AsyncGenerator[LogLine, None]:
    """What `DeployBackend.logs` promises, for one file."""
    log = LogFile(path)
    looking = None
    try:
        first = await asyncio.to_thread(_first_lines, log, query)
        looking = asyncio.create_task(_keep_looking(log)) if query.follow else None
        for number, line in enumerate(first):
            if query.follow and number % LOOK_EVERY == 0:
                log.look()
            yield line
        while query.follow and not log.removed:
            pause = QUIET_SECONDS
            for line in log.read():
                pause = BUSY_SECONDS
                yield line
            await asyncio.sleep(pause)
    finally:
        if looking is not None:
            looking.cancel()
        log.close()


async def _keep_looking(log: LogFile) -> None:
    """Sees each file of the log, also while whoever reads the lines is slow."""
    while not log.removed:
        await asyncio.sleep(BUSY_SECONDS)
        log.look()


def _first_lines(log: LogFile, query: LogQuery) -> collections.deque[LogLine]:
    if query.tail:
        log.skip_to_tail(query)
    kept = (line for line in log.read() if line.time >= query.since)
    return collections.deque(kept, maxlen=query.tail or None)
