"""What an instance has used, read from its control groups and from /proc: no process is started for it.

Formats: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel, proc(5). The counters are the kernel's as
far as it keeps them, so that they outlive the agent; `Marks` does the same for the others.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path

from edge_agent.runtime import kernel_files
from edge_agent.runtime.backend import Stats
from edge_agent.runtime.kernel_files import number, text

CGROUPS = Path("sys/fs/cgroup")
MILLIS_PER_TICK = 1000 // os.sysconf("SC_CLK_TCK")
# "lo:  1234  12 ...": name, 8 numbers of what was received, 8 of what was sent.
INTERFACE = re.compile(r"^\s*(\S+):\s*(\d{1,18})" + r"\s+\d+" * 7 + r"\s+(\d{1,18})\b", re.MULTILINE)
BLOCKS_V1 = re.compile(r"^(\d+:\d+) (Read|Write) (\d{1,18})$", re.MULTILINE)
# Some kernels put devices that have nothing to tell before another one on its line.
BLOCKS_V2 = re.compile(r"\b(\d+:\d+) rbytes=(\d{1,18}) wbytes=(\d{1,18})")
# Deeper than anybody nests groups, or processes.
DEEPEST = 32


class Meter:
    """Reads below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._proc = root / "proc"

    def groups(self, pid: int, above: Callable[[str], str] = lambda path: path) -> dict[str, Path]:
        """The control groups of a process: controller -> folder; version 2 goes by the empty name. `above` answers the
        group of the whole instance, of which the process may have made groups of its own."""
        folders = {}
        for line in kernel_files.lines(self._proc / str(pid) / "cgroup"):
            controllers, _, path = line.partition(":")[2].partition(":")
            # The first group of all counts what the whole machine uses.
            if group := above(path).strip("/"):
                for controller in controllers.split(","):
                    folders[controller] = self._root / CGROUPS / controllers / group
        return folders

    def of_groups(self, folders: Mapping[str, Path], pid: int = 0) -> Stats | None:
        """What these groups (controller -> folder) have used, and the network of process `pid`; None where they are
        gone. What no controller counts is added up from the processes that are in them now."""
        pids = _members(folders)
        cpu, memory, blocks = _cpu_millis(folders), _memory(folders), self._blocks(folders)
        if not pids and (cpu is None or memory is None):
            return None
        if cpu is None or memory is None or blocks is None:
            added = self._of_processes(pids)
            cpu = added.cpu_millis if cpu is None else cpu
            memory = memory or (added.memory_kib, 0)
            blocks = blocks or self._blocks_v1(folders, added)
        # The peak was read before what is used now.
        now, peak = memory
        return Stats(cpu, now, max(now, peak) if peak else 0, *self._network(pid), *blocks)

    def of_processes(self, pids: Iterable[int], pid: int) -> Stats:
        """What these processes have used, as far as they still run or were waited for, and the network of process
        `pid`. Nobody keeps their peak."""
        received, sent = self._network(pid)
        return replace(self._of_processes(pids), network_received_bytes=received, network_sent_bytes=sent)

    def _of_processes(self, pids: Iterable[int]) -> Stats:
        each = [self._of_process(pid) for pid in pids]
        cpu, kib, read, written = (_total(counts) for counts in zip((0, 0, 0, 0), *each, strict=True))
        return Stats(cpu, kib, block_read_bytes=read, block_written_bytes=written)

    def _of_process(self, pid: int) -> tuple[int, int, int, int]:
        """Milliseconds, KiB now, bytes read and written; of its children, the time of those that it has waited for."""
        ticks = sum(int(field) for field in self._fields(pid)[11:15] if re.fullmatch(r"\d{1,15}", field))
        usage = text(self._proc / str(pid) / "io")
        read, written = (_field(usage, name) or 0 for name in ("read_bytes:", "write_bytes:"))
        return ticks * MILLIS_PER_TICK, self._memory_kib(pid), read, written

    def _fields(self, pid: int) -> list[str]:
        """Those of the process's `stat` from its state on; none where there is no such process."""
        return text(self._proc / str(pid) / "stat").rpartition(")")[2].split()

    def _memory_kib(self, pid: int) -> int:
        """What several processes share counts in part for each, where the kernel tells."""
        shared = _field(text(self._proc / str(pid) / "smaps_rollup"), "Pss:")
        return shared if shared is not None else _field(text(self._proc / str(pid) / "status"), "VmRSS:") or 0

    def _network(self, pid: int) -> tuple[int, int]:
        """Bytes received and sent in the process's own network namespace; what goes through the device's is of
        everybody."""
        if not pid or self._namespace("self") in (None, self._namespace(str(pid))):
            return 0, 0
        found = INTERFACE.findall(text(self._proc / str(pid) / "net" / "dev"))
        counted = [(int(received), int(sent)) for name, received, sent in found if name != "lo"]
        return _total(received for received, _ in counted), _total(sent for _, sent in counted)

    def _namespace(self, process: str) -> str | None:
        try:
            return str((self._proc / process / "ns" / "net").readlink())
        except OSError:
            return None

    def _blocks(self, folders: Mapping[str, Path]) -> tuple[int, int] | None:
        """Bytes read and written, of version 2; None where it counts none."""
        for folder in _candidates(folders, "io"):
            if kernel_files.exists(folder / "io.stat"):
                found = BLOCKS_V2.findall(text(folder / "io.stat"))
                return self._of_disks((device, int(read), int(written)) for device, read, written in found)
        return None

    def _blocks_v1(self, folders: Mapping[str, Path], added: Stats) -> tuple[int, int]:
        """The same of version 1, which does not know whose the bytes are that the kernel writes later, and counts
        nothing at all in kernels from 6.10 on; the processes know both."""
        read, written = self._of_disks(_transfers_v1(folders))
        return max(read, added.block_read_bytes), max(written, added.block_written_bytes)

    def _of_disks(self, transfers: Iterable[tuple[str, int, int]]) -> tuple[int, int]:
        """What passes through a volume of other disks is counted at those."""
        below = self._root / "sys/dev/block"
        disks = [(r, w) for device, r, w in transfers if not kernel_files.names(below / device / "slaves")]
        return _total(read for read, _ in disks), _total(written for _, written in disks)


class Marks:
    """The most that was seen of each instance, for what the kernel keeps no count of: a peak, and what processes did
    that have ended. In a file in memory, which outlives the agent and goes with the instances."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, Stats] = {}
        for line in kernel_files.lines(path):
            key, *counts = line.split(" ")
            if len(counts) == len(fields(Stats)) and all(re.fullmatch(r"\d{1,18}", count) for count in counts):
                self._seen[key] = Stats(*map(int, counts))

    def completed(self, key: str, stats: Stats) -> Stats:
        """Nothing but the memory now is less than it was before."""
        before = self._seen.get(key, stats)
        peak = max(stats.memory_kib, stats.memory_peak_kib)
        most = [max(pair) for pair in zip(astuple(before), astuple(replace(stats, memory_peak_kib=peak)), strict=True)]
        found = replace(Stats(*most), memory_kib=stats.memory_kib)
        if found != self._seen.get(key):
            self._seen[key] = found
            self._write()
        return found

    def keep_only(self, keys: Collection[str]) -> None:
        """The others are gone."""
        kept = {key: seen for key, seen in self._seen.items() if key in keys}
        if kept != self._seen:
            self._seen = kept
            self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        lines = (" ".join((key, *map(str, astuple(seen)))) for key, seen in self._seen.items())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text("".join(f"{line}\n" for line in lines))
            fresh.replace(self._path)
        except OSError:
            # Then this life of the agent is all that they are of.
            return


def _candidates(folders: Mapping[str, Path], *controllers: str) -> Iterator[Path]:
    yield from (folders[controller] for controller in (*controllers, "") if controller in folders)


def _members(folders: Mapping[str, Path]) -> Sequence[int]:
    """Processes in the groups and in those below them."""
    found: set[int] = set()
    for folder in dict.fromkeys(folders.values()):
        found.update(_members_below(folder))
        if found:
            break
    return sorted(found)


def _members_below(folder: Path, depth: int = 0) -> Iterator[int]:
    yield from _pids(folder / "cgroup.procs")
    if depth < DEEPEST:
        for name in kernel_files.names(folder):
            if (folder / name).is_dir():
                yield from _members_below(folder / name, depth + 1)


def _pids(path: Path) -> list[int]:
    return [int(pid) for pid in text(path).split() if re.fullmatch(r"\d{1,9}", pid)]


def _cpu_millis(folders: Mapping[str, Path]) -> int | None:
    for folder in _candidates(folders, "cpuacct", "cpu"):
        if (nanoseconds := number(folder / "cpuacct.usage")) is not None:
            return nanoseconds // 1_000_000
        if (microseconds := _field(text(folder / "cpu.stat"), "usage_usec")) is not None:
            return microseconds // 1000
    return None


def _memory(folders: Mapping[str, Path]) -> tuple[int, int] | None:
    """KiB now, without the cache of files that the kernel drops first, and at the peak, with it; that one is 0 where
    the kernel (before 5.19, with version 2) does not keep it."""
    for folder in _candidates(folders, "memory"):
        peak = number(folder / "memory.peak") or number(folder / "memory.max_usage_in_bytes") or 0
        for usage, inactive in (("current", "inactive_file"), ("usage_in_bytes", "total_inactive_file")):
            used = number(folder / f"memory.{usage}")
            if used is not None:
                droppable = _field(text(folder / "memory.stat"), inactive) or 0
                return max(0, used - droppable) // 1024, peak // 1024
    return None


def _transfers_v1(folders: Mapping[str, Path]) -> Iterator[tuple[str, int, int]]:
    """(device, bytes read, bytes written)"""
    # The second leaves out the groups below, and is all that old kernels have.
    names = ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes")
    for folder in _candidates(folders, "blkio"):
        said = next((found for name in names if (found := text(folder / name))), "")
        for device, way, count in BLOCKS_V1.findall(said):
            yield (device, int(count), 0) if way == "Read" else (device, 0, int(count))


def _field(said: str, name: str) -> int | None:
    found = re.search(rf"^{re.escape(name)}\s+(\d{{1,18}})\b", said, re.MULTILINE)
    return int(found[1]) if found else None


def _total(counts: Iterable[int]) -> int:
    return min(sum(counts), 2**63 - 1)
