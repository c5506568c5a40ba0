"""Control groups of version 2, over a tree as Linux 6.1 has it: which are found, and what is written where.

On such a kernel these very writes are taken, and a group so made kills what takes more memory (`memory.events` below)
and refuses one process too many; it has no `cpuset`, which was not compiled in.
"""

import asyncio
from pathlib import Path

import pytest

from baremetal_agent.supervisor.main import _memory_kills
from baremetal_agent.virtualenv.cgroups import Cgroups, Joined, find_cgroups
from edge_agent.runtime.model import Resources

CONTROLLERS = "cpu io memory pids\n"
# A group that was just made, as far as it is of interest here.
FRESH = {
    "cgroup.controllers": CONTROLLERS, "cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.type": "domain\n",
    "cpu.max": "max 100000\n", "io.max": "", "memory.max": "max\n", "memory.oom.group": "0\n",
    "memory.swap.max": "max\n", "pids.max": "max\n",
}  # fmt: skip
KILLED = "low 0\nhigh 0\nmax 74\noom 1\noom_kill 2\noom_group_kill 1\n"
LIMITS = Resources(cpu_millis=500, memory_bytes=32 * 2**20, pids=8, cpu_set="0")


def group(path: Path) -> Path:
    path.mkdir(parents=True)
    for name, content in FRESH.items():
        (path / name).write_text(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With the groups that are about to be made, whose files a kernel would make with them."""
    found = group(tmp_path / "cgroup")
    group(found / "longshore-a")
    group(found / "longshore-a/one")
    return found


def mounted(root: Path, *others: str) -> Path:
    """As /proc/self/mounts tells it."""
    mounts = root.parent / "mounts"
    mounts.write_text(
        "\n".join([f"cgroup2 {root} cgroup2 rw,relatime,memory_recursiveprot 0 0", "proc /proc proc rw 0 0", *others])
    )
    return mounts


def made(root: Path) -> Cgroups:
    return find_cgroups(mounted(root))


def test_controllers_are_found_and_given_to_the_groups_below(root: Path) -> None:
    found = made(root)
    assert (found.version, found.controllers) == (2, frozenset(CONTROLLERS.split()))
    assert (root / "cgroup.subtree_control").read_text() == "+cpu +io +memory +pids"


def test_each_limit_is_written_for_which_there_is_a_controller(root: Path) -> None:
    joined = made(root).create("longshore-a/one", LIMITS)
    one = root / "longshore-a/one"
    assert joined == Joined((one,), (one / "memory.events",))
    assert (root / "longshore-a/cgroup.subtree_control").read_text() == "+cpu +io +memory +pids"
    written = {name: (one / name).read_text() for name in FRESH if (one / name).read_text() != FRESH[name]}
    assert written == {
        "cpu.max": "50000 100000", "memory.max": "33554432", "memory.swap.max": "0", "memory.oom.group": "1",
        "pids.max": "8",
    }  # fmt: skip


def test_kernel_that_does_not_count_swap_limits_the_rest(root: Path) -> None:
    one = root / "longshore-a/one"
    (one / "memory.swap.max").unlink()
    made(root).create("longshore-a/one", LIMITS)
    assert (one / "memory.max").read_text() == "33554432"
    assert not (one / "memory.swap.max").exists()


def test_what_the_kernel_killed_for_memory_is_counted(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(KILLED)
    assert _memory_kills(str(tmp_path / "memory.events")) == 2


def test_processes_are_those_of_the_group(root: Path) -> None:
    (root / "longshore-a/one/cgroup.procs").write_text("12\n7\n")
    assert made(root).processes("longshore-a/one") == [7, 12]
    assert made(root).processes("longshore-a/gone") == []


def test_hierarchy_whose_controllers_version_1_has_gives_way_to_that(root: Path, tmp_path: Path) -> None:
    (root / "cgroup.controllers").write_text("\n")
    assert not find_cgroups(mounted(root)).hierarchies
    older = tmp_path / "memory"
    older.mkdir()
    found = find_cgroups(mounted(root, f"cgroup {older} cgroup rw,memory 0 0"))
    assert found == Cgroups(1, {"memory": older})


def test_hierarchy_that_may_not_be_divided_is_none(root: Path) -> None:
    # A kernel refuses it where processes are beside the groups.
    (root / "cgroup.subtree_control").unlink()
    (root / "cgroup.subtree_control").mkdir()
    assert not find_cgroups(mounted(root)).hierarchies


async def test_group_goes_with_its_parent_also_where_it_refuses_at_first(root: Path) -> None:
    found = made(root)
    for folder in (root / "longshore-a/one", root / "longshore-a"):
        # A kernel takes these files along.
        for name in FRESH:
            (folder / name).unlink()
    # As a process does that has ended and is counted for a moment still.
    (root / "longshore-a/one/held").mkdir()
    removing = asyncio.create_task(found.remove("longshore-a/one"))
    await asyncio.sleep(0)
    assert (root / "longshore-a/one").exists()
    (root / "longshore-a/one/held").rmdir()
    await removing
    assert not (root / "longshore-a").exists()
