"""What is told of a device's disks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runtime import disk_watch
from edge_agent.runtime.disk import MIB, ROUNDED_TO, Space, rounded, spaces
from edge_agent.runtime.disk_watch import DiskWatch, least

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("size", "free"),
    [(1024 * GIB, 1024 * GIB // 20), (10 * GIB, GIB // 2), (4 * GIB, 256 * MIB), (400 * MIB, 100 * MIB)],
)
def test_a_disk_needs_5_percent_and_256_mib_or_a_quarter_of_a_small_one(size: int, free: int) -> None:
    assert least(Space(Path("/"), size, 0)) == pytest.approx(free, abs=1)


def test_each_file_system_is_named_once_by_where_it_is_mounted(tmp_path: Path) -> None:
    found = spaces([tmp_path, tmp_path / "not" / "there", Path("/proc")])
    assert len(found) == 2
    assert tmp_path.is_relative_to(found[0].path)
    assert found[0].path.is_mount()
    assert found[0].size >= found[0].free > 0
    assert found[1].path == Path("/proc")


@given(st.lists(st.integers(0, 10 * ROUNDED_TO), min_size=1))
def test_what_is_told_is_close_and_changes_only_with_what_is_so(amounts: list[int]) -> None:
    told: int | None = None
    for free in amounts:
        before, told = told, rounded(free, told)
        assert told % ROUNDED_TO == 0
        assert told <= free < told + 2 * ROUNDED_TO
        if before is not None and abs(free - before - ROUNDED_TO) < ROUNDED_TO:
            assert told == before


def test_small_changes_around_a_limit_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = [300, 255, 257, 250, 319, 255, 330, 300]
    seen = iter([Space(Path("/data"), 4 * GIB, mib * MIB)] for mib in amounts)
    monkeypatch.setattr(disk_watch, "spaces", lambda _: next(seen))
    told: list[str] = []
    watch = DiskWatch(list, told.append)
    for _ in amounts:
        watch.look()
    assert told == [
        "DiskNearlyFull: 192 MiB of 4096 MiB are free at /data, 256 MiB should be; what runs goes on; "
        "free space on this device",
        "",
    ]


def test_little_space_is_told_with_a_bound_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = [10, 60, 100, 127, 130, 63]
    seen = iter([Space(Path("/data"), 4 * GIB, mib * MIB)] for mib in amounts)
    monkeypatch.setattr(disk_watch, "spaces", lambda _: next(seen))
    told: list[str] = []
    watch = DiskWatch(list, told.append)
    for _ in amounts:
        watch.look()
    amounts_told = [said.removeprefix("DiskNearlyFull: ").partition(" of ")[0] for said in told]
    assert amounts_told == ["less than 64 MiB", "less than 128 MiB", "128 MiB", "less than 64 MiB"]
