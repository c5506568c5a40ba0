"""What instances use, read from trees as the kernel lays them out."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runtime.backend import Stats
from edge_agent.runtime.metering import MILLIS_PER_TICK, Marks, Meter
from longshore.v1 import mqtt_pb2

PID = 4321
LIMIT = 2**63
OWN_NETWORK = {"proc/self/ns/net": "net:[1]", f"proc/{PID}/ns/net": "net:[2]"}
RECEIVED, SENT = (
    "{:>8} {:>7}    0    0    0     0          0         0",
    " {:>8} {:>7}    0    0    0     0       0          0",
)
DEV = "Inter-|   Receive              |  Transmit\n face |bytes    packets errs |bytes    packets errs\n"
for interface, received, sent in (("lo", 9999, 9999), ("eth0", 1000, 200), ("eth1", 5, 7)):
    DEV += f"{interface:>6}:{RECEIVED.format(received, 10)}{SENT.format(sent, 3)}\n"
V1 = {
    f"proc/{PID}/cgroup": (
        "5:blkio:/a/libpod-1\n4:memory:/a/libpod-1\n2:cpu,cpuacct:/a/libpod-1\n1:name=systemd:/\n0::/\n"
    ),
    f"proc/{PID}/net/dev": DEV,
    "sys/fs/cgroup/cpu,cpuacct/a/libpod-1/cpuacct.usage": "1234567890\n",
    "sys/fs/cgroup/cpu,cpuacct/a/libpod-1/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
    "sys/fs/cgroup/memory/a/libpod-1/memory.usage_in_bytes": f"{700 * 1024}\n",
    "sys/fs/cgroup/memory/a/libpod-1/memory.max_usage_in_bytes": f"{900 * 1024}\n",
    "sys/fs/cgroup/memory/a/libpod-1/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * 1024}\n",
    "sys/fs/cgroup/blkio/a/libpod-1/blkio.throttle.io_service_bytes": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
    "sys/fs/cgroup/blkio/a/libpod-1/blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 8192\n8:0 Async 4096\n8:0 Discard 0\n8:0 Total 12288\n"
        "8:16 Read 1\n8:16 Write 0\nTotal 12289\n"
    ),
}
GROUP = "sys/fs/cgroup/machine.slice/libpod-1.scope"
V2 = {
    f"proc/{PID}/cgroup": "0::/machine.slice/libpod-1.scope\n",
    f"proc/{PID}/net/dev": DEV,
    f"{GROUP}/cgroup.procs": f"{PID}\n",
    f"{GROUP}/cpu.stat": "usage_usec 2500999\nuser_usec 2000000\nsystem_usec 500999\nnr_periods 0\n",
    f"{GROUP}/memory.current": f"{700 * 1024}\n",
    f"{GROUP}/memory.peak": f"{900 * 1024}\n",
    f"{GROUP}/memory.stat": f"anon 5\ninactive_anon 7\ninactive_file {100 * 1024}\nactive_file 1\n",
    f"{GROUP}/io.stat": (
        "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 8:16 rbytes=1 wbytes=0 rios=1 wios=0\n"
    ),
}
PROCESSES = {
    f"proc/{PID}/stat": f"{PID} (a) b) S 1 {PID} {PID} 0 -1 4194560 1 2 3 4 50 20 7 3 20 0 1 0 100 1 1\n",
    f"proc/{PID}/status": "Name:\ta\nVmHWM:\t  999 kB\nVmRSS:\t     300 kB\n",
    f"proc/{PID}/io": "rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 100\n",
    "proc/4400/stat": "4400 (child) R 4321 1 1 0 -1 0 0 0 0 0 10 0 0 0 20 0 1 0 100 1 1\n",
    "proc/4400/smaps_rollup": "00400000-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   90 kB\nPss:  40 kB\n",
    "proc/4400/io": "read_bytes: 1\nwrite_bytes: 0\n",
}


def plant(root: Path, files: dict[str, str], namespaces: dict[str, str] = OWN_NETWORK) -> Meter:
    for name, said in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)
    for name, target in namespaces.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    return Meter(root)


def measured(meter: Meter) -> Stats | None:
    return meter.of_groups(meter.groups(PID), PID)


def test_groups_of_version_1_are_counted(tmp_path: Path) -> None:
    assert measured(plant(tmp_path, V1)) == Stats(1234, 600, 900, 1005, 207, 4097, 8192)


def test_groups_of_version_2_are_counted(tmp_path: Path) -> None:
    assert measured(plant(tmp_path, V2)) == Stats(2500, 600, 900, 1005, 207, 4097, 8192)


def test_folders_that_a_backend_made_are_counted_as_they_are(tmp_path: Path) -> None:
    meter = plant(tmp_path, V2)
    found = meter.of_groups(dict.fromkeys(("cpu", "memory", "io"), tmp_path / GROUP))
    assert found == Stats(2500, 600, 900, 0, 0, 4097, 8192)


def test_old_kernels_count_blocks_without_the_groups_below(tmp_path: Path) -> None:
    meter = plant(tmp_path, {name: said for name, said in V1.items() if not name.endswith("recursive")})
    found = measured(meter)
    assert found is not None
    assert (found.block_read_bytes, found.block_written_bytes) == (1, 2)


def test_a_kernel_that_counts_no_blocks_for_groups_is_helped_out_by_the_processes(tmp_path: Path) -> None:
    name = "sys/fs/cgroup/blkio/a/libpod-1/blkio.throttle.io_service_bytes_recursive"
    files = {**V1, **PROCESSES, name: "Total 0\n", "sys/fs/cgroup/memory/a/libpod-1/cgroup.procs": f"{PID}\n"}
    found = measured(plant(tmp_path, files))
    assert found == Stats(1234, 600, 900, 1005, 207, 4096, 100)


def test_what_passes_through_a_volume_of_other_disks_is_counted_once(tmp_path: Path) -> None:
    # 8:16 lies on 8:0, as an encrypted disk does.
    found = measured(plant(tmp_path, {**V2, "sys/dev/block/8:16/slaves/sda": ""}))
    assert found is not None
    assert found.block_read_bytes == 4096


def test_network_that_is_the_devices_own_is_not_counted(tmp_path: Path) -> None:
    shared = {"proc/self/ns/net": "net:[1]", f"proc/{PID}/ns/net": "net:[1]"}
    found = measured(plant(tmp_path, V2, shared))
    assert found is not None
    assert (found.network_received_bytes, found.network_sent_bytes) == (0, 0)


def test_peak_is_no_less_than_what_is_used_now(tmp_path: Path) -> None:
    found = measured(plant(tmp_path, {**V2, f"{GROUP}/memory.peak": "1024\n"}))
    assert found is not None
    assert found.memory_peak_kib == found.memory_kib == 600


def test_a_kernel_that_counts_no_memory_in_groups_is_helped_out_by_the_processes(tmp_path: Path) -> None:
    files = {name: said for name, said in V2.items() if "memory" not in name} | PROCESSES
    files[f"{GROUP}/inner/cgroup.procs"] = "4400\n"
    assert measured(plant(tmp_path, files)) == Stats(2500, 340, 0, 1005, 207, 4097, 8192)


def test_groups_that_are_gone_tell_nothing(tmp_path: Path) -> None:
    assert measured(plant(tmp_path, {})) is None
    gone = {f"proc/{PID}/cgroup": V2[f"proc/{PID}/cgroup"]}
    assert measured(plant(tmp_path / "other", gone)) is None


def test_the_group_of_the_whole_machine_is_nobodys(tmp_path: Path) -> None:
    files = {f"proc/{PID}/cgroup": "0::/\n", "sys/fs/cgroup/cpu.stat": "usage_usec 5\n"}
    assert plant(tmp_path, files).groups(PID) == {}


def test_processes_without_groups_are_added_up(tmp_path: Path) -> None:
    meter = plant(tmp_path, PROCESSES)
    assert meter.of_processes([PID, 4400, 1], PID) == Stats(90 * MILLIS_PER_TICK, 340, 0, 0, 0, 4097, 100)


def test_this_very_process_is_measured() -> None:
    found = Meter().of_processes([os.getpid()], os.getpid())
    assert found.cpu_millis > 0
    assert found.memory_kib > 1024


def test_what_no_kernel_keeps_is_the_most_that_was_seen_also_by_an_agent_before(tmp_path: Path) -> None:
    path = tmp_path / "longshore" / "used"
    first = Marks(path)
    assert first.completed("a", Stats(10, 50, 0, 1, 2, 3, 4)) == Stats(10, 50, 50, 1, 2, 3, 4)
    assert first.completed("a", Stats(9, 70, 0, 1, 2, 30, 1)) == Stats(10, 70, 70, 1, 2, 30, 4)
    assert first.completed("b", Stats(1, 5, 90)).memory_peak_kib == 90
    second = Marks(path)
    assert second.completed("a", Stats(11, 60)) == Stats(11, 60, 70, 1, 2, 30, 4)
    second.keep_only({"b"})
    assert Marks(path).completed("a", Stats(1, 60)) == Stats(1, 60, 60)


def test_marks_are_kept_where_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    marks = Marks(tmp_path / "file" / "used")
    marks.completed("a", Stats(1, 70))
    assert marks.completed("a", Stats(1, 60)).memory_peak_kib == 70


ANY = st.binary(max_size=200) | st.sampled_from([b"9" * 5000, b"8:0 Read " + b"9" * 18 + b"\n", b"-1", b"1:a:/\0x\n"])


@pytest.mark.parametrize("files", [V1, V2, PROCESSES], ids=["v1", "v2", "processes"])
@given(data=st.data())
def test_whatever_the_files_say_numbers_come_out_that_the_contract_can_carry(
    files: dict[str, str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        meter = plant(Path(folder), files)
        for name in data.draw(st.sets(st.sampled_from(sorted(files)), min_size=1)):
            Path(folder, name).write_bytes(data.draw(ANY))
        for found in (measured(meter), meter.of_processes([PID, 4400], PID)):
            if found is not None:
                assert all(0 <= count < LIMIT for count in vars(found).values())
        Path(folder, "used").write_bytes(data.draw(ANY))
        assert Marks(Path(folder, "used")).completed("a", Stats(1, 2)).memory_peak_kib >= 2


def test_the_contract_carries_every_counter() -> None:
    counted = vars(Stats(1, 2, 3, 4, 5, 6, 7))
    assert {name: getattr(mqtt_pb2.InstanceMetrics(**counted), name) for name in counted} == counted
