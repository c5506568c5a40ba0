"""Output that was made for a terminal becomes lines that a person can read."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.builds.progress_lines import MAX_LINE, SHOWN_EVERY, ProgressLines


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(*pieces: str | bytes) -> list[str]:
    lines = ProgressLines(Clock())
    given = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    return [*(text for piece in given for text in lines.feed(piece)), *lines.end()]


TQDM = "".join(f"\r{percent:3d}%|{'#' * (percent // 10):10}| {percent}/100" for percent in range(0, 101, 5)) + "\n"
PIP = (
    "Downloading x-1.0.whl (3.4 MB)\n\x1b[?25l   \x1b[90m━━━━━━\x1b[0m \x1b[32m0.0/3.4 MB\x1b[0m \x1b[31m?\x1b[0m eta\r"
    "\x1b[2K   \x1b[91m━━━━\x1b[0m\x1b[90m━━\x1b[0m \x1b[32m2.0/3.4 MB\x1b[0m\r"
    "\x1b[2K   \x1b[90m━━━━━━\x1b[0m \x1b[32m3.4/3.4 MB\x1b[0m \x1b[31m9.1 MB/s\x1b[0m eta \x1b[36m0:00:00\x1b[0m\r\n"
    "\x1b[?25hInstalling x\n"
)
CURL = (
    "  % Total    % Received % Xferd  Average Speed\n"
    "\r  0     0    0     0    0     0      0      0\r 40  100k   40   40k    0     0   200k      0"
    "\r100  100k  100  100k    0     0   400k      0\n"
)
DPKG = (
    "(Reading database ... \r(Reading database ... 5%\r(Reading database ... 100%\r"
    "(Reading database ... 8123 files and directories currently installed.)\r\nUnpacking hello ...\n"
)
APT = "Reading package lists... 0%\r\rReading package lists... 50%\r\rReading package lists... Done\r\n"
CONDA = "\rnumpy | 8.1 MB |   | 0% \rnumpy | 8.1 MB | # | 50% \rnumpy | 8.1 MB | ## | 100% \r              \rDone\n"


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        (TQDM, ["100%|##########| 100/100"]),
        (PIP, ["Downloading x-1.0.whl (3.4 MB)", "   ━━━━━━ 3.4/3.4 MB 9.1 MB/s eta 0:00:00", "Installing x"]),
        (CURL, ["  % Total    % Received % Xferd  Average Speed", "100  100k  100  100k    0     0   400k      0"]),
        (DPKG, ["(Reading database ... 8123 files and directories currently installed.)", "Unpacking hello ..."]),
        (APT, ["Reading package lists... Done"]),
        (CONDA, ["Done"]),
        ("\r10%\r90%\r   \r\n", ["90%"]),
        ("\x1b[2K\x1b[1G10%\x1b[2K\x1b[1G100%\n", ["100%"]),
        ("- \b\b\\ \b\b| \b\bdone\n", ["done"]),
        ("\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b(B\x07\n", ["link"]),
        ("tab\tkept \n\n   \n", ["tab\tkept"]),
    ],
)
def test_a_bar_becomes_its_last_state(printed: str, lines: list[str]) -> None:
    assert lines_of(printed) == lines


def test_a_long_bar_is_shown_now_and_then_and_its_end_is_not_said_twice() -> None:
    clock = Clock()
    lines = ProgressLines(clock)
    seen = []
    for percent in range(100):
        clock.now += SHOWN_EVERY / 10
        seen += lines.feed(f"{percent}%\r".encode())
    assert 8 <= len(seen) <= 10
    assert all(int(later[:-1]) - int(earlier[:-1]) >= 10 for earlier, later in pairwise(seen))
    for shown in ("99%", "100%"):
        clock.now += SHOWN_EVERY
        assert lines.feed(b"100%\r") == [shown]
    assert lines.feed(b"\nnext\n") == ["next"]


def test_what_a_killed_program_left_is_shown() -> None:
    assert lines_of("10%\r20%\r") == ["20%"]
    assert lines_of("no end") == ["no end"]
    assert lines_of("half \x1b[3") == ["half [3"]


def test_invalid_utf_8_is_marked_and_harms_nothing_else() -> None:
    assert lines_of(b"a\xffb\n\xc3", b"\xa9\n\xe2\x82") == ["a\ufffdb", "é", "\ufffd"]


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE, 10 * MAX_LINE + 7])
@pytest.mark.parametrize("step", [100, 7001, 10**6])
def test_a_long_line_is_cut_so_that_its_reader_knows_that_it_goes_on(length: int, step: int) -> None:
    text = "".join(chr(97 + number % 26) for number in range(length))
    lines = lines_of(*(text[begin : begin + step] for begin in range(0, length, step)), "\nnext\n")
    *pieces, following = lines
    assert following == "next"
    assert "".join(pieces) == text
    assert all(len(piece) == MAX_LINE for piece in pieces[:-1])
    assert len(pieces[-1]) < MAX_LINE


PIECES = st.lists(st.sampled_from(["a", "é", " ", "\r", "\n", "\r\n", "\x1b[31m", "\x1b[2K", "\b", "10%", "x" * 5000]))


@given(PIECES, st.lists(st.integers(1, 9000), max_size=20))
@example(["x" * 5000, "\x1b[31m", "x" * 5000, "\n"], [8190, 1, 1, 1, 1])
def test_where_the_output_is_cut_into_reads_does_not_matter(printed: list[str], cuts: list[int]) -> None:
    content = "".join(printed).encode()
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(content[at : at + cut])
        at += cut
    assert lines_of(*pieces, content[at:]) == lines_of(content)


@given(st.binary(max_size=2000))
def test_no_line_has_a_control_character_or_is_too_long(printed: bytes) -> None:
    for text in lines_of(printed):
        assert len(text) <= MAX_LINE
        assert not any(character < " " and character != "\t" for character in text)
