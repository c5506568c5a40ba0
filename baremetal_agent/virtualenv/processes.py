"""Processes that are found again: by number, start time and the life of the machine, never by the number alone."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edge_agent.runtime.deaths import wait_for_end

PROC = Path("/proc")
# A killed process that is in the middle of a system call ends with a delay.
KILL_SECONDS = 10.0


def start_ticks(pid: int) -> int:
    """When the process began, in ticks since the machine did; 0 where there is none, or where it has ended."""
    fields = _fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else 0


def is_same(pid: int, began: int) -> bool:
    """Whether this very process runs."""
    return pid > 0 and began > 0 and start_ticks(pid) == began


def open_process(pid: int, began: int) -> int | None:
    """A pidfd of this very process, which becomes readable when it ends; None where it has ended."""
    try:
        process = os.pidfd_open(pid)
    except (OSError, OverflowError):
        return None
    if is_same(pid, began):
        return process
    os.close(process)
    return None


def send(process: int, number: int) -> None:
    """A signal to the process behind a pidfd; nothing happens where it has ended."""
    try:
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return


async def end_all(find: Callable[[], Iterable[int]]) -> bool:
    """Whether none of those that `find` tells runs any more: they are killed, and so are those that they started
    meanwhile. False where one still does after KILL_SECONDS."""
    deadline = time.monotonic() + KILL_SECONDS
    while running := [(pid, began) for pid in find() if (began := start_ticks(pid))]:
        for pid, began in running:
            process = open_process(pid, began)
            if process is not None:
                try:
                    send(process, signal.SIGKILL)
                    if not await wait_for_end(process, max(0.0, deadline - time.monotonic())):
                        return False
                finally:
                    os.close(process)
    return True


def marked(variable: str, value: str) -> Iterator[int]:
    """Those that were started with this variable, as far as they can be asked."""
    mark = f"{variable}={value}".encode()
    for path in PROC.glob("[0-9]*/environ"):
        try:
            found = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in found:
            yield int(path.parent.name)


def descendants(pid: int) -> Iterator[int]:
    for listing in (PROC / str(pid) / "task").glob("*/children"):
        try:
            below = [int(child) for child in listing.read_text().split()]
        except OSError:
            continue
        for child in below:
            yield child
            yield from descendants(child)


def _fields(pid: int) -> list[str]:
    """Those of proc(5)'s stat from the state on; none where there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
