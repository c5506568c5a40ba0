"""The last lines of a log are found from its end, and are those that reading all of it gives."""

import asyncio
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_agent.runtime import log_tail
from edge_agent.runtime.backend import LogLine, LogQuery
from edge_agent.runtime.log_file import read_log
from edge_agent.runtime.log_tail import seek_tail

STAMP = "2026-01-02T03:04:05.123456789+00:00"
FULL = 10 * 1024 * 1024

Parts = list[tuple[str, str, str]]
parts = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("PF"), st.text("ab F", max_size=40)), max_size=30
)

unfinished_lines = st.sampled_from(["", STAMP[:10], f"{STAMP} stdout F hal"])


def written(lines: Parts) -> str:
    return "".join(f"{STAMP} {stream} {tag} {text}\n" for stream, tag, text in lines)


async def read(path: Path, tail: int = 0) -> list[LogLine]:
    return [line async for line in read_log(path, LogQuery(tail=tail))]


@given(
    older=parts,
    lines=parts,
    unfinished=st.sampled_from(["", STAMP[:10], f"{STAMP} stdout F hal"]),
    tail=st.integers(1, 12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.parametrize("block", [1, 7, 64, 4096])
async def test_the_tail_is_the_end_of_all_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, older: Parts, lines: Parts, unfinished: str, tail: int
) -> None:
    monkeypatch.setattr(log_tail, "BLOCK", block)
    path = tmp_path / "ctr.log"
    path.write_text(written(lines) + unfinished)
    (tmp_path / "ctr.log.1").write_text(written(older))
    assert await read(path, tail) == (await read(path))[-tail:]


@example(before=[("stdout", "P", "loading... "), ("stderr", "F", "warning")], after=[], tail=1)
@given(before=parts, after=parts, tail=st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
async def test_a_follower_of_the_tail_gets_the_lines_whole_that_end_later(
    tmp_path: Path, before: Parts, after: Parts, tail: int
) -> None:
    path = tmp_path / "ctr.log"
    # The first line is there so that the follower has one to begin with.
    path.write_text(written([("stdout", "F", "first"), *before]) + f"{STAMP} std")
    known = len(await read(path))
    following = read_log(path, LogQuery(tail=tail, follow=True))
    seen = [await anext(following) for _ in range(min(tail, known))]
    with path.open("a") as more:
        more.write(f"out F last\n{written(after)}{STAMP} stderr F end\n")
    expected = (await read(path))[max(0, known - tail) :]
    async with asyncio.timeout(20):
        while len(seen) < len(expected):
            seen.append(await anext(following))
    await following.aclose()
    assert seen == expected


async def test_the_tail_of_a_full_log_takes_a_look_at_its_end_only(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    with path.open("w") as log:
        while log.tell() < FULL:
            log.write(f"{STAMP} stdout F request {log.tell()} was answered\n")
        log.write(f"{STAMP} stdout P {'x' * 8000}\n{STAMP} stderr F Traceback\n{STAMP} stdout F y\n")
        log.write("".join(f"{STAMP} stderr F line {number}\n" for number in range(18)))
    lines = await read(path, 20)
    assert [line.text for line in lines[:2]] == ["Traceback", "x" * 8000 + "y"]
    assert [line.text for line in lines[2:]] == [f"line {number}" for number in range(18)]
    for pending in (False, True):
        with path.open("rb") as file:
            assert seek_tail([file], 20, pending=pending) == 0
            assert FULL < file.tell() < FULL + 200


class Watched(io.BytesIO):
    """A file that counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.taken += len(content)
        return content


def test_no_more_is_read_than_the_tail_takes() -> None:
    log = Watched(written([("stdout", "F", f"request {number} was answered") for number in range(100_000)]).encode())
    line = written([("stdout", "F", "request 99999 was answered")])
    older = Watched(log.getvalue())
    assert seek_tail([older, log], 20) == 1
    assert log.tell() == len(log.getvalue()) - 20 * len(line)
    assert older.taken == 0
    assert log.taken == log_tail.BLOCK


def test_a_file_without_a_whole_line_has_no_tail() -> None:
    for content in (b"", b"\n", b"2026 stdout", b"nonsense\n\n"):
        file = io.BytesIO(content)
        assert seek_tail([file], 3) == 0
        assert file.tell() == len(content)
