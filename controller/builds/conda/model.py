"""What is asked of the program that resolves conda packages, and what it answers."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Wish:
    """`specs` as conda writes them. `subdir`: the platform in conda's words. `virtual`: name, version and build of what
    the device itself has, such as its C library. `cache`: a folder that outlives builds, of one user; `scratch`: one
    that goes with the build."""

    specs: tuple[str, ...]
    channels: tuple[str, ...]
    subdir: str
    virtual: tuple[tuple[str, str, str], ...]
    cache: str
    scratch: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> "Wish":
        known = json.loads(path.read_text(encoding="utf-8"))
        return Wish(
            tuple(known["specs"]), tuple(known["channels"]), known["subdir"],
            tuple((name, version, build) for name, version, build in known["virtual"]), known["cache"],
            known["scratch"],
        )  # fmt: skip


class Problem(StrEnum):
    """Why there is no environment."""

    MISSING = "missing"
    CONFLICT = "conflict"
    INVALID = "invalid"
    UNUSABLE = "unusable"
    UNREACHABLE = "unreachable"
    NO_CHANNEL = "no channel"
    DISK_FULL = "disk full"


@dataclass(frozen=True)
class Package:
    """`record` as its channel describes it, with `fn`, `url` and `channel`; `folder` has its files, unpacked."""

    record: dict[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def identity(self) -> str:
        return f"{self.name}-{self.record['version']}-{self.record['build']}"


@dataclass(frozen=True)
class Answer:
    """Packages in the order in which they are to be installed, or the problem; `subject` is what it is about."""

    packages: tuple[Package, ...] = ()
    problem: Problem | None = None
    subject: str = ""

    def write(self, path: Path) -> None:
        packages = [[package.record, str(package.folder)] for package in self.packages]
        known = {"packages": packages, "problem": self.problem, "subject": self.subject}
        path.write_text(json.dumps(known), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> "Answer":
        known = json.loads(path.read_text(encoding="utf-8"))
        packages = tuple(Package(record, Path(folder)) for record, folder in known["packages"])
        return Answer(packages, Problem(known["problem"]) if known["problem"] else None, known["subject"])
