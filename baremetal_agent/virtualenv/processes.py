"""Processes that are found again: by number, start time and the life of the machine, never by the number alone."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


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
