"""The logs of several instances as one."""

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue

from longshore.failures import LongshoreError
from longshore.v1 import types_pb2

Reader = Callable[[], Iterator[types_pb2.LogLine]]


@dataclass(frozen=True)
class Said:
    """A line, and whose it is."""

    source: str
    line: types_pb2.LogLine


@dataclass(frozen=True)
class Unread:
    """A log that could not be read, or not to its end."""

    source: str
    failure: LongshoreError


def in_order(readers: Mapping[str, Reader]) -> Iterator[Said | Unread]:
    """All lines by their time, and at last what could not be read. One that fails does not hinder the others."""
    failed: list[Unread] = []

    def lines(source: str, reader: Reader) -> Iterator[Said]:
        try:
            for line in reader():
                yield Said(source, line)
        except LongshoreError as failure:
            failed.append(Unread(source, failure))

    logs = [lines(source, reader) for source, reader in readers.items()]
    yield from heapq.merge(*logs, key=lambda said: (said.line.time.seconds, said.line.time.nanos))
    yield from failed


def as_they_come(readers: Mapping[str, Reader]) -> Iterator[Said | Unread]:
    """Lines as they are said, each log read by a thread of its own, until all have ended."""
    told: SimpleQueue[Said | Unread | None] = SimpleQueue()

    def read(source: str, reader: Reader) -> None:
        try:
            for line in reader():
                told.put(Said(source, line))
        except LongshoreError as failure:
            told.put(Unread(source, failure))
        except ValueError:  # grpc raises it once the channel is closed
            return
        finally:
            told.put(None)

    for source, reader in readers.items():
        threading.Thread(target=read, args=(source, reader), name=f"log of {source}", daemon=True).start()
    left = len(readers)
    while left:
        item = told.get()
        if item is None:
            left -= 1
        else:
            yield item
