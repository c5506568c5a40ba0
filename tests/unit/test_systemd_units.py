"""What systemd is asked for, on machines of each kind of control groups."""

import os
from pathlib import Path

import pytest

from baremetal_agent.supervisor.main import settle_in
from baremetal_agent.supervisor.records import Launch as Fields
from baremetal_agent.virtualenv.confinement import Confinement
from baremetal_agent.virtualenv.instances import Instance
from baremetal_agent.virtualenv.launcher import Launch
from baremetal_agent.virtualenv.layout import Bind, Layout
from baremetal_agent.virtualenv.units import Units, find_units, node_name, properties, unit_groups, unit_name
from edge_agent.runtime.model import Resources

LIMITS = Resources(cpu_millis=1250, memory_bytes=64 * 2**20, pids=20, cpu_set="0-1")
ALWAYS = ["Delegate=yes", "TimeoutStopSec=20", "DevicePolicy=closed"]


def mounts(folder: Path, text: str) -> Path:
    """/proc/mounts of hierarchies below `folder`, which are there."""
    lines = []
    for line in text.splitlines():
        name, kind, options = line.split()
        (folder / name).mkdir(parents=True, exist_ok=True)
        lines.append(f"{kind} {folder / name} {kind} {options} 0 0\n")
    path = folder / "mounts"
    path.write_text("".join(lines))
    return path


def unified(folder: Path) -> Path:
    found = mounts(folder, ". cgroup2 rw")
    (folder / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma misc\n")
    return found


def separate(folder: Path) -> Path:
    """With version 2 beside it, in which systemd keeps its books; as this one, many machines mount cpu with cpuacct."""
    names = ("memory cgroup rw,memory", "pids cgroup rw,pids", "devices cgroup rw,devices", "blkio cgroup rw,blkio")
    more = ("cpu,cpuacct cgroup rw,cpu,cpuacct", "cpuset cgroup rw,cpuset", "systemd cgroup rw,xattr,name=systemd")
    found = mounts(folder, "\n".join((*names, *more, "unified cgroup2 rw")))
    # The kernel puts such files into every group, empty at first.
    for level in (".", "longshore.slice", "longshore.slice/longshore-digits-r3-0a.scope"):
        (folder / "cpuset" / level).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            (folder / "cpuset" / level / name).write_text("0-3" if level == "." else "")
    (folder / "memory/memory.memsw.limit_in_bytes").touch()
    return found


def launch(units: Units, *binds: Bind, resources: Resources = LIMITS) -> Launch:
    group = units.group("owner", "digits-r3-0a")
    instance = Instance("digits-r3-0a", "owner", "d-1", 3, "sha256:1", "digits", "boot", units.name, cgroup=group)
    return Launch(instance, Layout(("/bin/true",), (), "/", binds), Confinement(resources=resources))


def made(path: Path) -> Units:
    groups = unit_groups(path)
    assert groups is not None
    return Units(groups)


def test_limits_become_properties_and_none_are_made_up() -> None:
    assert properties(Resources(), [], unified=True) == ALWAYS
    given = ["DeviceAllow=/dev/lamp rw", "CPUQuota=125%", f"MemoryMax={68 * 2**20}"]
    assert properties(LIMITS, ["/dev/lamp"], unified=False) == [*ALWAYS, *given, "TasksMax=21"]
    both = [*ALWAYS, *given, "MemorySwapMax=0", "TasksMax=21", "AllowedCPUs=0-1"]
    assert properties(LIMITS, ["/dev/lamp"], unified=True) == both


def test_name_of_a_unit_has_only_what_systemd_allows() -> None:
    assert unit_name("digits-r3-0a") == "longshore-digits-r3-0a.scope"
    assert unit_name("a b/ü%") == "longshore-a_b___.scope"


def test_node_that_is_not_below_dev_is_named_by_its_numbers(tmp_path: Path) -> None:
    assert node_name(Path("/dev/null")) == "/dev/null"
    if os.geteuid() == 0:
        os.mknod(tmp_path / "node", 0o20600, os.makedev(10, 200))
        assert node_name(tmp_path / "node") == "/dev/char/10:200"


def test_one_hierarchy_leaves_all_to_systemd_but_the_death_of_the_whole(tmp_path: Path) -> None:
    units = made(unified(tmp_path))
    joined = units.prepare(launch(units))
    folder = tmp_path / "longshore.slice/longshore-digits-r3-0a.scope"
    assert joined.folders == (folder,)
    assert joined.kills == (folder / "memory.events",)
    assert joined.settings == ((Path("/proc/self/oom_score_adj"), "-1000"), (folder / "memory.oom.group", "1"))
    assert joined.unit == "longshore-digits-r3-0a.scope"
    assert not folder.exists()
    assert units.limits("") == (frozenset({"cpu", "memory", "pids", "cpuset", "io"}), "cgroup-v2")


def test_many_hierarchies_leave_the_choice_of_cores_and_swap_to_the_agent(tmp_path: Path) -> None:
    units = made(separate(tmp_path))
    joined = units.prepare(launch(units))
    name = "longshore.slice/longshore-digits-r3-0a.scope"
    assert joined.folders == (tmp_path / "cpuset" / name, tmp_path / "unified" / name)
    assert joined.kills == (tmp_path / "memory" / name / "memory.oom_control",)
    assert joined.settings == (
        (tmp_path / "memory" / name / "memory.memsw.limit_in_bytes", str(68 * 2**20)),
        (Path("/proc/self/oom_score_adj"), "-1000"),
    )
    assert (tmp_path / "cpuset" / name / "cpuset.cpus").read_text() == "0-1"
    assert [path.parents[1].name for path in tmp_path.glob(f"*/{name}")] == ["cpuset"]
    limits, by = units.limits("")
    assert ({"cpu", "memory", "pids", "cpuset"} <= limits, by) == (True, "cgroup-v1")


def test_without_the_second_version_systemd_knows_processes_by_its_own_hierarchy(tmp_path: Path) -> None:
    units = made(mounts(tmp_path, "memory cgroup rw,memory\nsystemd cgroup rw,xattr,name=systemd"))
    joined = units.prepare(launch(units))
    assert joined.folders == (tmp_path / "systemd/longshore.slice/longshore-digits-r3-0a.scope",)
    assert unit_groups(mounts(tmp_path, "memory cgroup rw,memory")) is None


def test_supervisor_is_started_in_a_unit_with_the_devices_of_the_spec(tmp_path: Path) -> None:
    units = made(unified(tmp_path))
    binds = (Bind("/srv/data", "/data"), Bind("/dev/null", "/dev/null", device=True))
    argv = units.starting(launch(units, *binds, resources=Resources()), ["python", "-c", "x"])
    assert argv == [
        "systemd-run", "--scope", "--quiet", "--collect", "--slice=longshore.slice",
        "--description=digits revision 3, d-1", "--unit=longshore-digits-r3-0a.scope",
        *(f"--property={setting}" for setting in (*ALWAYS, "DeviceAllow=/dev/null rw")), "--", "python", "-c", "x",
    ]  # fmt: skip


def test_units_are_for_machines_that_systemd_runs(tmp_path: Path) -> None:
    assert find_units(unified(tmp_path), tmp_path / "nowhere") is None


def test_setting_that_is_refused_keeps_those_after_it_from_being_made(tmp_path: Path) -> None:
    for name in ("one", "three"):
        (tmp_path / name).touch()
    settings = [f"set={tmp_path / 'one'}=1", f"set={tmp_path / 'two'}=2", f"set={tmp_path / 'three'}=3"]
    settle_in(Fields("\0".join(settings)))
    assert [(tmp_path / name).read_text() for name in ("one", "three")] == ["1", ""]


@pytest.mark.parametrize(
    ("launcher", "group"),
    [("supervisor", "longshore-owner/digits"), ("systemd", "longshore.slice/longshore-digits.scope")],
)
async def test_removal_leaves_the_slice_to_systemd(tmp_path: Path, launcher: str, group: str) -> None:
    units = made(unified(tmp_path))
    (tmp_path / "longshore.slice").mkdir()
    (tmp_path / "longshore-owner/digits").mkdir(parents=True)
    await units.clear(Instance("digits", "owner", "d-1", 3, "sha256:1", "digits", "boot", launcher, cgroup=group))
    assert (tmp_path / "longshore.slice").is_dir()
    assert (tmp_path / "longshore-owner").exists() == (launcher == "systemd")
