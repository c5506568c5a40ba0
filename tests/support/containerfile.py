"""Reads a Containerfile as a builder does, written apart from what renders them.

The rules: https://docs.docker.com/reference/dockerfile/ (lines joined at a trailing backslash, comment lines dropped,
words of ENV and LABEL with quotes, JSON of the exec form, the rest a shell command).
"""

import json
import re
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """`text` as written after the keyword, lines joined."""

    keyword: str
    text: str

    def pairs(self) -> list[tuple[str, str]]:
        """Names and values of ENV or LABEL; a variable in a value shows as `${name}`."""
        return [split_pair(raw) for raw in split_words(self.text)]

    def word(self) -> str:
        return unquote(self.text)

    def exec_form(self) -> list[str]:
        words = json.loads(self.text)
        assert isinstance(words, list)
        return words

    def paths(self) -> list[str]:
        """The paths of a VOLUME: JSON, in whose words quotes and variables are read once more."""
        return [unquote(path) for path in self.exec_form()]

    def run_form(self) -> list[str]:
        """The words of a RUN whose command is given as JSON."""
        words = json.loads(self.command())
        assert isinstance(words, list)
        return words

    def command(self) -> str:
        """What a RUN executes, without its mounts."""
        return re.sub(r"^(--mount=\S+\s+)+", "", self.text)

    def mounts(self) -> list[dict[str, str]]:
        """The mounts of a RUN, by option."""
        flags = re.findall(r"--mount=(\S+)\s", self.text[: len(self.text) - len(self.command())])
        return [dict(option.split("=", 1) for option in flag.split(",")) for flag in flags]

    def shell_words(self) -> list[str]:
        """Words and operators of the command of a RUN, as a POSIX shell splits them."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        return list(lexer)


def parse(text: str) -> list[Instruction]:
    logical: list[str] = []
    pending = ""
    for line in text.split("\n"):
        if re.match(r"^\s*#", line) or (pending == "" and not line.strip()):
            continue
        if match := re.match(r"^(.*)\\[ \t]*$", line):
            pending += match[1]
            continue
        logical.append(pending + line)
        pending = ""
    assert pending == "", "the file ends within an instruction"
    return [Instruction(*line.strip().split(None, 1)) for line in logical]


def split_words(text: str) -> list[str]:
    """Words separated by blanks outside of quotes, with their quotes."""
    words, current, quote, escaped = [], "", "", False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in " \t":
            words += [current] if current else []
            current = ""
            continue
        current += character
    assert not quote
    return words + ([current] if current else [])


def split_pair(raw: str) -> tuple[str, str]:
    """NAME=value, where the name may be quoted too."""
    quoted = re.match(r'^("(?:[^"\\]|\\.)*"|[^"=]+)=(.*)$', raw, re.DOTALL)
    assert quoted, raw
    return unquote(quoted[1]), unquote(quoted[2])


def unquote(raw: str) -> str:
    result, quote, position = "", "", 0
    while position < len(raw):
        character = raw[position]
        if quote == "'":
            quote, result = ("", result) if character == "'" else (quote, result + character)
        elif character == "\\" and position + 1 < len(raw):
            position += 1
            following = raw[position]
            result += following if not quote or following in '"$\\' else "\\" + following
        elif character == quote:
            quote = ""
        elif character in "\"'" and not quote:
            quote = character
        elif character == "$":
            name = re.match(r"\w+|\{\w+\}", raw[position + 1 :])
            assert name, f"a lone $ in {raw}"
            result += "${" + name[0].strip("{}") + "}"
            position += len(name[0])
        else:
            result += character
        position += 1
    assert not quote
    return result
