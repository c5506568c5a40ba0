"""Processes that are found again: by number, start time and the life of the machine, never by the number alone."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from edge_agent.runtime.backend import Stats

PROC = Path("/proc")
MILLIS_PER_TICK = 1000 // os.sysconf("SC_CLK_TCK")


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


def usage_of_tree(pid: int) -> Stats:
    """Of the process and all below it: the CPU time of those that run and of those that were waited for."""
    ticks, kib = 0, 0
    for each in (pid, *descendants(pid)):
        if fields := _fields(each):
            ticks += sum(int(field) for field in fields[11:15])
            kib += _proportional_kib(each)
    return Stats(ticks * MILLIS_PER_TICK, kib)


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


def _proportional_kib(pid: int) -> int:
    """Memory that is shared by several processes counts in part for each."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
