"""All processes of a command: those of the session that it leads (setsid(2)), and their children.

No other process gets the session's number while one of its processes lives.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KILL_SECONDS = 10.0
PAUSE = 0.02


@dataclass(frozen=True)
class Process:
    """One line of /proc (proc_pid_stat(5)); `started` in ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    started: int


async def kill_command(leader: int, within: str = "") -> bool:
    """Afterwards nothing of the command lives; False where something still does after a while. Only processes are
    touched whose control group's name contains `within`."""
    deadline = time.monotonic() + KILL_SECONDS
    while living := [process for process in command_of(leader) if _is_within(process.pid, within)]:
        for process in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(PAUSE)
    return True


def command_of(leader: int, proc: Path = Path("/proc")) -> list[Process]:
    """What lives of the command, in no order. Zombies do not."""
    everyone = [process for process in _all(proc) if process.state not in "ZX"]
    found = {process.pid: process for process in everyone if leader in (process.pid, process.session)}
    grown = True
    while grown:
        children = {p.pid: p for p in everyone if p.parent in found and p.pid not in found}
        found |= children
        grown = bool(children)
    return list(found.values())


def started(pid: int, proc: Path = Path("/proc")) -> int:
    """When this process was started, in ticks since boot; 0 where there is none."""
    process = _process(proc / str(pid))
    return process.started if process is not None else 0


def _all(proc: Path) -> Iterator[Process]:
    for folder in proc.iterdir():
        if folder.name.isdigit() and (process := _process(folder)) is not None:
            yield process


def _process(folder: Path) -> Process | None:
    try:
        text = (folder / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return Process(int(folder.name), fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def _is_within(pid: int, group: str) -> bool:
    try:
        return group in Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
