"""Logs of builds: durable line by line, bounded, followed by many, kept compressed."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from controller.builds import log_files
from controller.builds.logs import BuildLogLine, BuildLogs
from controller.errors import NotFound
from longshore.errors import Reason
from tests.support.async_waiting import until

SMALL = 64 * 1024


Open = Callable[..., BuildLogs]


@pytest.fixture
def open_logs(tmp_path: Path) -> Iterator[Open]:
    """Opens the folder, also once more as after a kill; its files are closed in the end."""
    opened: list[BuildLogs] = []

    def open_(max_bytes: int = 16 * 2**20) -> BuildLogs:
        opened.append(BuildLogs(tmp_path, max_bytes))
        return opened[-1]

    yield open_
    for logs in opened:
        logs.close("b-1")


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def write(logs: BuildLogs, count: int, target: str = "x86-cpu", text: str = "line {}") -> None:
    for number in range(1, count + 1):
        logs.append("b-1", target, "stdout", text.format(number))


async def read(logs: BuildLogs, number: int = 0, target: str = "") -> list[BuildLogLine]:
    return [line async for line in logs.read("b-1", number, False, yes, target)]


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_a_log_goes_on_with_the_next_number_after_a_kill_in_the_middle_of_a_line(
    tmp_path: Path, open_logs: Open
) -> None:
    logs = open_logs()
    write(logs, 2)
    (part,) = (tmp_path / "b-1").iterdir()
    with part.open("ab") as file:
        file.write(b'{"number":3,"time":1')
    again = open_logs()
    again.append("b-1", "x86-cpu", "stdout", "three")
    assert [(line.number, line.text) for line in await read(again, 2)] == [(2, "line 2"), (3, "three")]


async def test_a_line_that_a_power_cut_damaged_is_left_out_and_the_others_are_there(
    tmp_path: Path, open_logs: Open
) -> None:
    logs = open_logs()
    write(logs, 3)
    (part,) = (tmp_path / "b-1").iterdir()
    raw = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(raw[0] + b"\0" * (len(raw[1]) - 1) + b"\n" + raw[2])
    assert [line.number for line in await read(open_logs())] == [1, 2, 3]


@pytest.mark.parametrize("finished", [False, True])
async def test_of_a_log_without_end_head_and_tail_are_kept_and_the_disk_is_not_filled(
    tmp_path: Path, open_logs: Open, finished: bool
) -> None:
    logs = open_logs(SMALL)
    for begin in range(0, 20_000, 1000):
        write(logs, 1000, text=f"{begin} {{}} of a program that prints without end")
        assert bytes_below(tmp_path) < 1.1 * SMALL
    if finished:
        await logs.finish("b-1")
    lines = await read(logs)
    (gap,) = [at for at, line in enumerate(lines) if line.stream == "system"]
    first, last = lines[gap - 1].number + 1, lines[gap + 1].number - 1
    assert lines[gap].text.startswith(f"{last - first + 1} lines are left out here, {first} to {last}")
    assert [line.number for line in lines[:gap]] == list(range(1, first))
    assert [line.number for line in lines[gap:]] == list(range(last, 20_001))
    assert sum(len(line.text) for line in lines[:gap]) > SMALL / 8
    assert sum(len(line.text) for line in lines[gap:]) > SMALL / 8
    inside = await read(logs, first + 5)
    assert [line.number for line in inside] == list(range(last, 20_001))
    assert [line.number for line in await read(logs, 20_000)] == [20_000]


async def test_a_follower_sees_each_line_once_in_order_across_the_end_of_the_build(open_logs: Open) -> None:
    logs, over = open_logs(SMALL), asyncio.Event()
    seen: dict[int, list[int]] = {number: [] for number in range(20)}

    async def ended() -> bool:
        return over.is_set()

    async def follow(number: int) -> None:
        async for line in logs.read("b-1", 1, True, ended):
            seen[number].append(line.number)
            if number % 5 == 0:
                # A slow one: what it has not read yet is compressed meanwhile.
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    followers = [asyncio.create_task(follow(number)) for number in seen]
    await asyncio.sleep(0)
    for _ in range(10):
        write(logs, 20)
        await asyncio.sleep(0)
    over.set()
    await logs.finish("b-1")
    async with asyncio.timeout(30):
        await asyncio.gather(*followers)
    assert all(numbers == list(range(1, 201)) for numbers in seen.values())


async def test_those_who_follow_closely_cost_no_look_at_the_disk(
    open_logs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = open_logs()
    write(logs, 100)
    read_files = 0
    batch = log_files.LogReader.batch

    def counted(reader: log_files.LogReader) -> list[BuildLogLine]:
        nonlocal read_files
        read_files += 1
        return batch(reader)

    monkeypatch.setattr(log_files.LogReader, "batch", counted)
    seen: list[int] = []

    async def follow() -> None:
        async for line in logs.read("b-1", 1, True, no):
            seen.append(line.number)

    followers = [asyncio.create_task(follow()) for _ in range(50)]
    await until(lambda: len(seen) == 50 * 100)
    logs.append("b-1", "x86-cpu", "stdout", "one more")
    await until(lambda: len(seen) == 50 * 101)
    assert read_files == 0
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)


async def test_a_reader_that_does_not_read_holds_up_nobody(open_logs: Open) -> None:
    logs = open_logs(SMALL)
    logs.append("b-1", "x86-cpu", "stdout", "first")
    async with aclosing(logs.read("b-1", 1, True, no)) as stuck:
        assert (await anext(stuck)).number == 1
        write(logs, 5000, text="{} " + 30 * "x")
        assert (await read(logs))[-1].number == 5001
        # What was removed before it came to read it is a gap for it.
        rest = []
        async for line in stuck:
            rest.append(line)
            if line.number == 5001:
                break
    (gap,) = [at for at, line in enumerate(rest) if line.stream == "system"]
    assert [line.number for line in rest[gap:]] == list(range(rest[gap].number, 5002))


async def test_a_target_is_read_by_itself_with_what_concerns_the_whole_build(open_logs: Open) -> None:
    logs = open_logs()
    for target in ("x86-cpu", "arm64-cpu", "", "x86-cpu"):
        logs.append("b-1", target, "stdout", "text")
    assert [line.number for line in await read(logs, target="x86-cpu")] == [1, 3, 4]
    await logs.finish("b-1")
    assert [line.number for line in await read(logs, target="arm64-cpu")] == [2, 3]


@pytest.mark.parametrize("finished", [False, True])
async def test_the_whole_log_is_downloaded_as_gzip_of_json_lines(open_logs: Open, finished: bool) -> None:
    logs = open_logs()
    write(logs, 10_000, text="größer {}")
    if finished:
        await logs.finish("b-1")
    pieces = [piece async for piece in logs.download("b-1", yes)]
    lines = [json.loads(line) for line in gzip.decompress(b"".join(pieces)).splitlines()]
    assert [line["number"] for line in lines] == list(range(1, 10_001))
    assert {key: lines[1][key] for key in ("target", "stream", "text")} == {
        "target": "x86-cpu", "stream": "stdout", "text": "größer 2"
    }  # fmt: skip
    assert lines[0]["time"] <= lines[-1]["time"]


async def test_a_finished_log_is_small_and_finishing_again_changes_nothing(tmp_path: Path, open_logs: Open) -> None:
    logs = open_logs()
    write(logs, 5000)
    before = bytes_below(tmp_path)
    await asyncio.gather(logs.finish("b-1"), logs.finish("b-1"))
    await logs.finish("b-1")
    assert bytes_below(tmp_path) < before / 10
    assert logs.sizes() == {"b-1": bytes_below(tmp_path)}
    assert (logs.unfinished(), len(await read(logs))) == ([], 5000)


async def test_a_log_goes_on_after_it_was_finished_and_while_it_is_being_finished(open_logs: Open) -> None:
    logs = open_logs()
    write(logs, 3)
    await logs.finish("b-1")
    logs.append("b-1", "x86-cpu", "system", "once more")
    finishing = asyncio.create_task(logs.finish("b-1"))
    await asyncio.sleep(0)
    logs.append("b-1", "x86-cpu", "system", "meanwhile")
    await finishing
    assert [line.number for line in await read(logs)] == [1, 2, 3, 4, 5]
    await logs.finish("b-1")
    assert [line.text for line in await read(logs, 4)] == ["once more", "meanwhile"]
    assert logs.unfinished() == []


def _killed_before_the_folder_goes(folder: Path) -> None:
    log_files.compress(folder / "b-1", folder / "b-1.jsonl.gz")


def _killed_while_compressing(folder: Path) -> None:
    (folder / ".b-1.jsonl.gz").write_bytes(b"half")


def _killed_while_removing(folder: Path) -> None:
    log_files.compress(folder / "b-1", folder / "b-1.jsonl.gz")
    (folder / "b-1").rename(folder / ".b-1.done")


@pytest.mark.parametrize("killed", [_killed_before_the_folder_goes, _killed_while_compressing, _killed_while_removing])
async def test_a_kill_while_a_log_is_finished_loses_nothing(
    tmp_path: Path, open_logs: Open, killed: Callable[[Path], None]
) -> None:
    write(open_logs(), 100)
    killed(tmp_path)
    logs = open_logs()
    assert len(await read(logs)) == 100
    await logs.finish("b-1")
    assert len(await read(logs)) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["b-1.jsonl.gz"]


async def test_the_log_of_an_ended_build_that_was_removed_is_not_found(tmp_path: Path, open_logs: Open) -> None:
    logs = open_logs()
    write(logs, 1)
    await logs.finish("b-1")
    logs.remove("b-1")
    with pytest.raises(NotFound) as caught:
        await read(logs)
    assert caught.value.reason == Reason.NO_SUCH_LOG
    with pytest.raises(NotFound):
        _ = [piece async for piece in logs.download("b-1", yes)]
    assert list(tmp_path.iterdir()) == []


async def test_a_build_that_said_nothing_has_an_empty_log_and_one_that_waits_has_too(open_logs: Open) -> None:
    logs = open_logs()
    assert [line async for line in logs.read("b-1", 0, False, no)] == []
    assert zlib.decompress(b"".join([piece async for piece in logs.download("b-1", no)]), wbits=31) == b""
    await logs.finish("b-1")
    assert await read(logs) == []


async def test_a_full_disk_costs_lines_and_not_the_build(open_logs: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = open_logs()
    write(logs, 2)

    def full(_: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_files, "encoded", full)
        write(logs, 3)
    write(logs, 1)
    logs.close("b-1")
    assert [(line.number, line.stream) for line in await read(logs)] == [
        (1, "stdout"), (2, "stdout"), (5, "system"), (6, "stdout")
    ]  # fmt: skip


async def test_logs_of_earlier_versions_can_be_read(tmp_path: Path, open_logs: Open) -> None:
    line = log_files.encoded(BuildLogLine(1, 1.0, "x86-cpu", "stdout", "old"))
    (tmp_path / "b-1.jsonl").write_bytes(line)
    logs = open_logs()
    logs.append("b-1", "x86-cpu", "stdout", "new")
    assert [line.text for line in await read(logs)] == ["old", "new"]
