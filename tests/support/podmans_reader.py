"""Containerfiles as Podman itself reads them: by the library of its parser, in a small program made from Go source."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SOURCE = Path(__file__).parent / "imagebuilder"
# Of the base on which every Containerfile is read there.
BASE_PATH = "/base/bin"


class NoReader(Exception):
    """The program cannot be made here; the text says why."""


@dataclass(frozen=True)
class Run:
    """`shell`: whether the only argument is a line for the shell."""

    shell: bool
    args: list[str]
    mounts: list[str]


@dataclass(frozen=True)
class Copied:
    """What COPY or ADD brings where, and as whose."""

    sources: list[str]
    to: str
    owner: str


@dataclass(frozen=True)
class Meaning:
    """All that a Containerfile does. `ports` and `volumes` in the order of their texts."""

    base: str
    keywords: list[str]
    runs: list[Run]
    copies: list[Copied]
    environment: dict[str, str]
    labels: dict[str, str]
    ports: list[str]
    volumes: list[str]
    user: str
    workdir: str
    entrypoint: list[str]
    command: list[str]


class PodmansReader:
    """Reads any number of Containerfiles."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests, self._answers = requests, answers

    def read(self, text: str) -> Meaning:
        """Raises ValueError where it is no Containerfile."""
        self._requests.write(json.dumps(text) + "\n")
        self._requests.flush()
        found: dict[str, Any] = json.loads(self._answers.readline())
        if error := found.pop("error"):
            raise ValueError(error)
        runs = [Run(one["shell"], one["args"], one["mounts"] or []) for one in found.pop("runs") or []]
        copies = [Copied(**one) for one in found.pop("copies") or []]
        environment = dict(each.split("=", 1) for each in found.pop("environment") or [])
        labels = found.pop("labels") or {}
        plain = {key: [] if value is None else value for key, value in found.items()}
        return Meaning(runs=runs, copies=copies, environment=environment, labels=labels, **plain)


@contextmanager
def podmans_reader(folder: Path) -> Iterator[PodmansReader]:
    """A reader whose program is made in `folder`. Raises NoReader."""
    if shutil.which("go") is None:
        raise NoReader("go is missing")
    program = folder / "containerfile-reader"
    argv = ["go", "build", "-buildvcs=false", "-o", str(program), "."]
    made = subprocess.run(argv, cwd=SOURCE, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NoReader(f"go cannot make the program: {made.stderr.strip()}")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield PodmansReader(process.stdin, process.stdout)
