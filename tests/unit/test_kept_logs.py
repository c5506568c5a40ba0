"""What an agent keeps of logs of instances that are gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.runtime.backend import LogLine, LogQuery
from edge_agent.runtime.kept_logs import KEPT_BYTES, KEPT_LINES, KeptLogs

BEGIN = 1_700_000_000.25
ALL = LogQuery()


async def lines(*texts: str, stream: str = "stdout") -> AsyncIterator[LogLine]:
    for number, text in enumerate(texts):
        yield LogLine(BEGIN + number, stream, text)


def texts(kept: KeptLogs, query: LogQuery = ALL, deployment_id: str = "dep-1") -> list[str] | None:
    found = kept.read(deployment_id, query)
    return None if found is None else [line.text for line in found]


@pytest.fixture
def kept(tmp_path: Path) -> KeptLogs:
    return KeptLogs(tmp_path / "previous-logs")


async def test_lines_come_back_as_they_were(kept: KeptLogs) -> None:
    odd = ["", "  spaces  ", "tab\tand \r carriage return", "\u00fcml\u00e4ut \u2713", "a b c"]
    await kept.keep("dep-1", lines(*odd, stream="stderr"))
    found = kept.read("dep-1", ALL)
    assert found is not None
    assert list(found) == [LogLine(BEGIN + number, "stderr", text) for number, text in enumerate(odd)]


async def test_nobody_else_on_the_device_reads_them(kept: KeptLogs, tmp_path: Path) -> None:
    await kept.keep("dep-1", lines("said"))
    assert (tmp_path / "previous-logs").stat().st_mode & 0o077 == 0


async def test_the_next_log_takes_the_place_of_the_one_before(kept: KeptLogs) -> None:
    await kept.keep("dep-1", lines("old", "older"))
    await kept.keep("dep-2", lines("another's"))
    await kept.keep("dep-1", lines("new"))
    assert texts(kept) == ["new"]
    assert texts(kept, deployment_id="dep-2") == ["another's"]
    await kept.keep("dep-1", lines())
    assert texts(kept) == []


async def test_query_picks_by_time_and_number(kept: KeptLogs) -> None:
    await kept.keep("dep-1", lines("1", "2", "3", "4"))
    assert texts(kept, LogQuery(since=BEGIN + 2)) == ["3", "4"]
    assert texts(kept, LogQuery(tail=1)) == ["4"]
    assert texts(kept, LogQuery(tail=3, since=BEGIN + 2)) == ["3", "4"]


async def test_only_the_last_of_a_long_log_is_kept(kept: KeptLogs, tmp_path: Path) -> None:
    await kept.keep("dep-1", lines(*(str(number) for number in range(KEPT_LINES + 7))))
    found = texts(kept)
    assert found is not None
    assert found == [str(number) for number in range(7, KEPT_LINES + 7)]
    await kept.keep("dep-1", lines(*(f"{number} {'x' * 5000}" for number in range(1000))))
    found = texts(kept)
    assert found is not None
    assert found[-1].startswith("999 ")
    (file,) = (tmp_path / "previous-logs").iterdir()
    assert KEPT_BYTES - 6000 < file.stat().st_size <= KEPT_BYTES


async def test_what_is_forgotten_is_gone_and_others_stay(kept: KeptLogs) -> None:
    for name in ("dep-1", "dep-2", "dep-3"):
        await kept.keep(name, lines(name))
    kept.forget("dep-1")
    kept.forget("dep-1")
    kept.keep_only({"dep-2", "dep-9"})
    assert [texts(kept, deployment_id=f"dep-{number}") for number in (1, 2, 3)] == [None, ["dep-2"], None]


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", ".", "a b"])
async def test_names_stay_in_the_folder(kept: KeptLogs, tmp_path: Path, name: str) -> None:
    await kept.keep(name, lines("kept"))
    assert texts(kept, deployment_id=name) == ["kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["previous-logs"]
    assert len(list((tmp_path / "previous-logs").iterdir())) == 1


async def test_disk_that_takes_nothing_loses_the_log_only(tmp_path: Path) -> None:
    (tmp_path / "previous-logs").write_text("a file where the folder should be")
    kept = KeptLogs(tmp_path / "previous-logs")
    await kept.keep("dep-1", lines("lost"))
    assert texts(kept) is None
    kept.forget("dep-1")
    kept.keep_only(set())


async def test_what_a_power_cut_has_spoiled_is_left_out(kept: KeptLogs, tmp_path: Path) -> None:
    await kept.keep("dep-1", lines("sound"))
    (file,) = (tmp_path / "previous-logs").iterdir()
    file.write_bytes(b"\0\0\0\0\nnonsense\n" + file.read_bytes() + b"17000")
    assert texts(kept) == ["sound"]
