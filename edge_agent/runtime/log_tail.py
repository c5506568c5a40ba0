"""Where the last lines of a log begin, found from its end: all of it takes too long to be read.

The format is that of `edge_agent.runtime.log_file`: a line that was written is its P parts up to an F, and those of the
two streams may come mixed.
"""

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

BLOCK = 64 * 1024
STREAMS = (b"stdout", b"stderr")


def seek_tail(files: Sequence[BinaryIO], count: int, *, pending: bool = False) -> int:
    """Sets the positions of a log's files, the oldest one first, so that reading on from the file whose index is
    answered gives the last `count` complete lines whole; maybe older ones before them, whose first parts may be
    missing. With `pending` also all parts of lines that have no end yet."""
    index, begin = _tail_start(files, count, pending)
    for file in files:
        file.seek(0)
    files[index].seek(begin)
    return index


def _tail_start(files: Sequence[BinaryIO], count: int, pending: bool) -> tuple[int, int]:
    begin = len(files) - 1, files[-1].seek(0, os.SEEK_END)
    found = 0
    # Streams of which further parts of the earliest line that is wanted may lie before what was looked at.
    unsure = set(STREAMS) if pending else set()
    for place, line in _all_backwards(files):
        _, stream, tag, *_ = [*line.split(b" ", 3), b"", b""]
        if tag == b"F" and found < count:
            found += 1
            unsure.add(stream)
            begin = place
        elif tag == b"F":
            unsure.discard(stream)
        elif stream in unsure:
            begin = place
        if found == count and not unsure:
            break
    return begin


def _all_backwards(files: Sequence[BinaryIO]) -> Iterator[tuple[tuple[int, int], bytes]]:
    for index in reversed(range(len(files))):
        for offset, line in _lines_backwards(files[index]):
            yield (index, offset), line


def _lines_backwards(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line that has its end, the last one first, with its offset."""
    start = file.seek(0, os.SEEK_END)
    # What was read and has no known beginning yet; at first, what has no end yet.
    head, ended = b"", False
    while start > 0:
        step = min(BLOCK, start)
        start -= step
        file.seek(start)
        text = file.read(step) + head
        head, *lines = text.split(b"\n")
        offset = start + len(text)
        for line in reversed(lines):
            offset -= len(line)
            if ended:
                yield offset, line
            offset, ended = offset - 1, True
    if ended:
        yield 0, head
