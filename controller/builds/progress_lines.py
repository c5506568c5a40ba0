"""Lines that a person can read, from what a program prints for a terminal: progress bars, colours, overwriting."""

import codecs
import re
import time
from collections.abc import Callable, Iterable, Iterator

# A longer line is cut into several: a program that never ends its line must not fill the memory.
MAX_LINE = 8192
# A bar that goes on for long is seen once in so many seconds.
SHOWN_EVERY = 5.0
# What is kept back of a line that has not ended: it may be the beginning of an escape sequence.
HELD = 256
# An end of a line, or a return to the line's beginning behind which something is written over it.
BREAK = re.compile(r"(\r*\n|(?:\r|\x1b\[[01]?G)+(?=[^\r\n]))")
# ECMA-48: control sequences; operating system commands (titles, links); others of two or three characters.
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]+[0-~]|[0-Z\\-~])")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class ProgressLines:
    """Takes the bytes of one stream as they come, gives whole lines.

    Of what is overwritten again and again, it gives the last state when the line ends, and one in `SHOWN_EVERY`
    seconds while it goes on. Blank lines are left out. Of a line longer than `MAX_LINE`, all pieces but the last have
    exactly that length, and the last is shorter (perhaps empty): so a reader knows that the line goes on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._raw = ""
        self._line = ""
        self._cut = False
        self._bar = ""
        self._said = ""
        self._since: float | None = None

    def feed(self, piece: bytes) -> list[str]:
        """The lines that have ended with these bytes."""
        parts = BREAK.split(self._raw + self._decoder.decode(piece))
        self._raw = parts.pop()
        lines = []
        for text, separator in zip(parts[::2], parts[1::2], strict=True):
            self._line += readable(text)
            lines += self._ended() if separator.endswith("\n") else self._overwritten()
        if len(self._raw) > MAX_LINE + HELD:
            self._line += readable(self._raw[:-HELD])
            self._raw = self._raw[-HELD:]
            lines += self._cut_off()
        return lines

    def end(self) -> list[str]:
        """What is left when the stream has ended."""
        self._line += readable((self._raw + self._decoder.decode(b"", final=True)).rstrip("\r"))
        self._raw = ""
        return self._ended()

    def _cut_off(self) -> Iterator[str]:
        while len(self._line) >= MAX_LINE:
            self._cut = True
            yield self._line[:MAX_LINE]
            self._line = self._line[MAX_LINE:]

    def _ended(self) -> list[str]:
        if len(self._line) >= MAX_LINE or self._cut:
            lines = [*self._cut_off(), self._line]
        else:
            text = self._line.rstrip() or self._bar
            lines = [text] if text and text != self._said else []
        self._line = self._bar = self._said = ""
        self._cut, self._since = False, None
        return lines

    def _overwritten(self) -> list[str]:
        if len(self._line) >= MAX_LINE or self._cut:
            return self._ended()
        text, self._line = self._line.rstrip(), ""
        self._bar = text or self._bar
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since < SHOWN_EVERY or not text or text == self._said:
            return []
        self._since, self._said = now, text
        return [text]


def joined(lines: Iterable[str]) -> str:
    """The lines as one text, each on a line of its own, those that were cut as they were."""
    return "".join(line if len(line) == MAX_LINE else f"{line}\n" for line in lines).removesuffix("\n")


def readable(text: str) -> str:
    """The text as a terminal would leave it: colours, titles and other controls gone, backspaces done."""
    text = ESCAPES.sub("", text)
    if "\b" in text:
        text = _erased(text)
    return CONTROLS.sub("", text)


def _erased(text: str) -> str:
    kept: list[str] = []
    for character in text:
        if character != "\b":
            kept.append(character)
        elif kept:
            kept.pop()
    return "".join(kept)
