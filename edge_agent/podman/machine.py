"""What the kernel says about a container's processes, against which Podman's own words are checked."""

import contextlib
import errno
import os
from pathlib import Path

from edge_agent.runtime.backend import Stats
from edge_agent.runtime.command_processes import command_of
from edge_agent.runtime.metering import Meter
from edge_agent.runtime.sockets import listeners

PROC = Path("/proc")


def runs(pid: int, container_id: str) -> bool:
    """Whether this process exists, is no zombie, and belongs to the container (a pid may have a new owner)."""
    state = _text(pid, "stat").rpartition(")")[2].split()[:1]
    return pid > 0 and bool(state) and state[0] not in "ZX" and _belongs(pid, container_id)


def own_group(pid: int, container_id: str) -> str:
    """Part of the name of the control group that only this container's processes are in; empty where there is none,
    as without root under version 1."""
    return container_id if container_id in _text(pid, "cgroup") else ""


def _belongs(pid: int, container_id: str) -> bool:
    """By the name of its control group, or else by the files that Podman keeps for the container and shows inside of
    it; outside they are mounted by nobody."""
    if own_group(pid, container_id):
        return True
    sources = [line.split(" ")[3:4] for line in _text(pid, "mountinfo").splitlines()]
    return any(f"/{container_id}/userdata/" in source for found in sources for source in found)


def _text(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""


def exists(pid: int) -> bool:
    return pid > 0 and (PROC / str(pid)).exists()


def open_process(pid: int, container_id: str) -> int | None:
    """A pidfd of a container's process; it becomes readable when the process ends. None where it has ended."""
    try:
        process = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return None
    if runs(pid, container_id):
        return process
    os.close(process)
    return None


def open_monitor(pid: int, container_id: str) -> int | None:
    """A pidfd of the container's monitor, as of `open_process`."""
    if not exists(pid):
        return None
    try:
        monitor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    with contextlib.suppress(OSError):
        if container_id in (PROC / str(pid) / "cmdline").read_text(errors="replace"):
            return monitor
    os.close(monitor)
    return None


def listens(pid: int, port: int) -> bool | None:
    """Whether something in the container's network listens at this port, for others than that network itself; None
    where the kernel does not tell."""
    found = listeners(pid, port)
    return None if found is None else bool(found)


def ran_out_of_memory(container_id: str) -> bool:
    """Whether the kernel log names this container as the one whose memory limit was hit. Podman 4.3 never tells."""
    with contextlib.suppress(OSError):
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            return any(container_id in record and "oom" in record for record in _kernel_records(log))
        finally:
            os.close(log)
    return False


def _kernel_records(log: int) -> list[str]:
    records = []
    while True:
        try:
            records.append(os.read(log, 8192).decode(errors="replace"))
        except BlockingIOError:
            return records
        except OSError as error:
            # The oldest record was overwritten while it was read; the next read gets the next one.
            if error.errno != errno.EPIPE:
                return records


def stats(pid: int, container_id: str, meter: Meter) -> Stats | None:
    """What the container has used; None where it is gone."""
    if not own_group(pid, container_id):
        # What its group has used is of others too. All that runs inside comes from its first process, but commands
        # that the agent runs there.
        found = meter.of_processes([process.pid for process in command_of(pid)], pid)
        return found if runs(pid, container_id) else None
    groups = meter.groups(pid, lambda path: container_group(path, container_id))
    return meter.of_groups(groups, pid) if runs(pid, container_id) else None


def container_group(path: str, container_id: str) -> str:
    """The group in which everything of the container is counted, from that of its first process: crun puts that one
    level deeper, and what runs inside may make groups of its own."""
    before, found, after = path.partition(container_id)
    return before + found + after.partition("/")[0] if found else path
