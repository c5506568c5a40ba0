"""What the kernel says about a container's processes, against which Podman's own words are checked."""

import contextlib
import errno
import os
import re
from pathlib import Path

from edge_agent.runtime.backend import Stats
from edge_agent.runtime.sockets import listeners

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def runs(pid: int, container_id: str) -> bool:
    """Whether this process exists, is no zombie, and belongs to the container (a pid may have a new owner)."""
    try:
        status = (PROC / str(pid) / "stat").read_text()
        cgroups = (PROC / str(pid) / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return pid > 0 and container_id in cgroups and status.rpartition(")")[2].split()[0] not in "ZX"


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


def stats(pid: int) -> Stats | None:
    """From the process's cgroup (v1 or v2); None where it is gone."""
    try:
        folders = cgroup_folders((PROC / str(pid) / "cgroup").read_text())
        return _stats_v2(folders[""]) if "memory" not in folders else _stats_v1(folders)
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None


def cgroup_folders(text: str) -> dict[str, Path]:
    """From /proc/<pid>/cgroup: controller -> folder; the unified hierarchy goes by the empty name."""
    folders = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            folders[controller] = CGROUPS / controllers / path.lstrip("/")
    return folders


def _stats_v1(folders: dict[str, Path]) -> Stats:
    nanoseconds = int((folders["cpuacct"] / "cpuacct.usage").read_text())
    used = int((folders["memory"] / "memory.usage_in_bytes").read_text())
    return Stats(nanoseconds // 1_000_000, (used - _inactive(folders["memory"], "total_inactive_file")) // 1024)


def _stats_v2(folder: Path) -> Stats:
    # crun may put the processes one level deeper than the limits, where nothing is counted.
    folder = folder if (folder / "memory.current").exists() else folder.parent
    usage = re.search(r"usage_usec (\d+)", (folder / "cpu.stat").read_text())
    used = int((folder / "memory.current").read_text())
    return Stats(int(usage.group(1)) // 1000 if usage else 0, (used - _inactive(folder, "inactive_file")) // 1024)


def _inactive(folder: Path, name: str) -> int:
    """Cache of files that the kernel drops first; not what the instance needs."""
    found = re.search(rf"^{name} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0
