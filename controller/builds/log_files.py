"""How a build's log lies on disk.

While the build runs, it is a folder of files of JSON lines, each named by the number of its first line; when the log
grows past its limit, files between the first and the last ones are removed, so that head and tail stay. When the build
has ended, it is one compressed file.
"""

import contextlib
import errno
import gzip
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path

# Of a log that is too long, so many files at its beginning and at its end stay.
HEAD, TAIL = 4, 4
# More than the longest line.
READ_SIZE = 256 * 1024
LEVEL = 6


@dataclass(frozen=True)
class BuildLogLine:
    """`target` is a target's key, empty for what concerns the build as a whole; time in seconds since the epoch."""

    number: int
    time: float
    target: str
    stream: str
    text: str


def encoded(line: BuildLogLine) -> bytes:
    return json.dumps(asdict(line), ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"


def decoded(raw: bytes) -> BuildLogLine | None:
    """None for what a power cut made of a line."""
    try:
        return BuildLogLine(**json.loads(raw))
    except (ValueError, TypeError):
        return None


def gap(first: int, last: int, time: float) -> BuildLogLine:
    """What stands for lines that are not kept; it has the number of the last of them."""
    text = f"{last - first + 1} lines are left out here, {first} to {last}: a log keeps its beginning and its end"
    return BuildLogLine(last, time, "", "system", text)


class LogWriter:
    """Appends to the folder of one log. What was written is there after a kill, up to the last whole line.

    A disk that takes nothing is no error of whoever writes: the folder is made as soon as there is room for it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._file_bytes = max(max_bytes // (HEAD + TAIL), 1)
        self.last = 0
        # Why the first line was not stored that could not be.
        self.trouble = ""
        self._file: FileIO | None = None
        with contextlib.suppress(OSError):
            self._open()

    def append(self, target: str, stream: str, text: str, time: float) -> BuildLogLine:
        """A line for which the disk has no room is not stored; the next one shows that it is missing."""
        line = BuildLogLine(self.last + 1, time, target, stream, text)
        try:
            self._write(encoded(line))
        except OSError as error:
            self.trouble = self.trouble or str(error)
        self.last += 1
        return line

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, raw: bytes) -> None:
        file = self._file or self._open()
        if file.tell() >= self._file_bytes:
            following = self._begin()
            file.close()
            self._file = file = following
        begin = file.tell()
        if file.write(raw) < len(raw):
            file.truncate(begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> FileIO:
        """Where the log goes on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = part_numbers(self._folder)
        if parts:
            self.last = max(self.last, parts[-1] - 1)
        self._file = self._reopen(parts[-1]) if parts else self._begin()
        return self._file

    def _begin(self) -> FileIO:
        parts = part_numbers(self._folder)
        for number in parts[HEAD : len(parts) + 1 - TAIL]:
            part_path(self._folder, number).unlink()
        return FileIO(part_path(self._folder, self.last + 1), "ab")

    def _reopen(self, number: int) -> FileIO:
        path, whole = part_path(self._folder, number), 0
        with path.open("rb") as written:
            for raw in written:
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                self.last = max(self.last, line.number) if (line := decoded(raw)) else self.last
        file = FileIO(path, "ab")
        file.truncate(whole)
        return file


class LogReader:
    """Reads one log from a number on, in its folder, as far as that is written."""

    def __init__(self, folder: Path, number: int) -> None:
        self.next = max(number, 1)
        self._folder = folder
        self._part = -1
        self._offset = 0

    def batch(self) -> list[BuildLogLine]:
        """The next lines, at least one unless there is none now. Raises FileNotFoundError where the folder is gone."""
        while True:
            parts = part_numbers(self._folder)
            if not parts:
                return []
            nearest = parts[max(0, bisect_right(parts, self.next) - 1)]
            if self._part < nearest or self._part not in parts:
                self._part, self._offset = nearest, 0
            if (lines := self._lines()) is not None:
                if lines:
                    return lines
            elif self._part != parts[-1]:
                self._part, self._offset = parts[parts.index(self._part) + 1], 0
            else:
                return []

    def skip(self, number: int) -> None:
        """Lines before this number are not wanted any more."""
        self.next = max(self.next, number)

    def _lines(self) -> list[BuildLogLine] | None:
        """Wanted lines of the next piece of the file; None where it has no further whole line."""
        with part_path(self._folder, self._part).open("rb") as file:
            file.seek(self._offset)
            raw, newline, _ = file.read(READ_SIZE).rpartition(b"\n")
        if not newline:
            return None
        self._offset += len(raw) + 1
        return list(self._wanted(map(decoded, raw.split(b"\n"))))

    def _wanted(self, lines: Iterable[BuildLogLine | None]) -> Iterator[BuildLogLine]:
        for line in lines:
            if line is None or line.number < self.next:
                continue
            if line.number > self.next:
                yield gap(self.next, line.number - 1, line.time)
            yield line
            self.next = line.number + 1


def part_numbers(folder: Path) -> list[int]:
    """Numbers of the first lines of a log's files, in order. Raises FileNotFoundError."""
    return sorted(int(path.stem) for path in folder.iterdir())


def part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.jsonl"


def compress(folder: Path, target: Path) -> None:
    """Writes the whole log durably as one file; a log without a folder is an empty one."""
    reader = LogReader(folder, 1)
    with target.open("wb") as file, gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
        while folder.exists() and (lines := reader.batch()):
            packed.write(b"".join(map(encoded, lines)))
    with target.open("rb") as written:
        os.fsync(written.fileno())


def uncompress(packed: Path, folder: Path) -> None:
    """Afterwards the folder holds the log again, as one file. Raises OSError; then nothing is left of it."""
    temporary = folder.with_name(f".{folder.name}.unpacked")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        with gzip.open(packed, "rb") as source, part_path(temporary, 1).open("wb") as target:
            shutil.copyfileobj(source, target)
        temporary.rename(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
