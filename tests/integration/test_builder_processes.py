"""Programs that the builder runs: their lines as they come, and their end."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from controller.builds import processes
from controller.builds.cancelling import in_thread
from controller.builds.logs import BuildLogs
from controller.builds.progress_lines import MAX_LINE
from tests.support.waiting import eventually


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def lines_of(script: str) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    code = await processes.stream([sys.executable, "-c", script], os.environ, lambda *line: lines.append(line))
    assert code == 0
    return lines


async def test_lines_keep_their_stream_and_lose_colours_and_what_was_overwritten() -> None:
    script = r"import sys; print('one\n\x1b[31mred\x1b[0m\n 10%\r 20%\nno end', end=''); print('bad', file=sys.stderr)"
    lines = await lines_of(script)
    assert [text for stream, text in lines if stream == "stdout"] == ["one", "red", " 20%", "no end"]
    assert [text for stream, text in lines if stream == "stderr"] == ["bad"]


async def test_an_endless_line_is_cut() -> None:
    lines = await lines_of("print('x' * 100_000)")
    assert sum(len(text) for _, text in lines) == 100_000
    assert max(len(text) for _, text in lines) <= MAX_LINE


async def test_what_a_command_answers_is_whole_also_where_a_line_is_long() -> None:
    script = "print('x' * 100_000); print('y' * 8192); print('z')"
    assert (await processes.run([sys.executable, "-c", script], os.environ)).stdout.split("\n") == [
        "x" * 100_000, "y" * 8192, "z"
    ]  # fmt: skip


async def test_a_program_that_prints_without_end_holds_up_nobody_and_fills_neither_memory_nor_disk(
    tmp_path: Path,
) -> None:
    logs = BuildLogs(tmp_path, 256 * 1024)
    turns, size = 0, 0
    script = "import sys; [sys.stdout.write('y\\n' * 4096) for _ in range(25)]"
    running = asyncio.create_task(
        processes.stream([sys.executable, "-c", script], os.environ, lambda *line: logs.append("b-1", "x", *line))
    )
    while not running.done():
        turns += 1
        size = max(size, sum(path.stat().st_size for path in (tmp_path / "b-1").glob("*")))
        await asyncio.sleep(0)
    logs.close("b-1")
    assert size < 300 * 1024
    assert turns > 25
    last = [line async for line in logs.read("b-1", 25 * 4096, False, _ended)]
    assert [(line.number, line.text) for line in last] == [(25 * 4096, "y")]


async def _ended() -> bool:
    return True


async def test_lines_come_while_the_program_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    seen = asyncio.Event()
    script = f"import os,time; print('first', flush=True)\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    running = asyncio.create_task(processes.stream([sys.executable, "-c", script], os.environ, lambda *_: seen.set()))
    await asyncio.wait_for(seen.wait(), 20)
    assert not running.done()
    gate.touch()
    assert await asyncio.wait_for(running, 20) == 0


@pytest.mark.parametrize("how", ["cancel", "broken reader"])
async def test_no_program_runs_on_unseen(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the program, and not what it started, even where it ignores TERM."""
    monkeypatch.setattr(processes, "STOP_DEADLINE", 0.5)
    script = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); child = os.fork()\n"
        "if child: print(os.getpid(), child, flush=True)\ntime.sleep(600)"
    )
    started: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def reader(_stream: str, text: str) -> None:
        started.set_result([int(pid) for pid in text.split()])
        if how == "broken reader":
            raise ValueError("reader")

    running = asyncio.create_task(processes.stream([sys.executable, "-c", script], os.environ, reader))
    pids = await asyncio.wait_for(started, 20)
    if how == "cancel":
        running.cancel()
    with pytest.raises((asyncio.CancelledError, ValueError)):
        await asyncio.wait_for(running, 60)
    await asyncio.to_thread(eventually, lambda: not any(alive(pid) for pid in pids), why=str(pids))


async def test_a_cancel_waits_for_what_a_thread_writes() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    written: list[int] = []

    def write() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        written.append(1)

    working = asyncio.create_task(in_thread(write))
    await begun.wait()
    working.cancel()
    assert (await asyncio.wait([working], timeout=0.05))[0] == set()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(working, 20)
    assert written == [1]
