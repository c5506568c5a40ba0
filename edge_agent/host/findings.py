"""What a doctor finds: one sentence each, and how to mend it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """A problem keeps the agent from its work; a warning will, some day or for some workloads."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`what` is a sentence about this machine; `mend` what to do, empty where there is nothing to do."""

    level: Level
    what: str
    mend: str = ""


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def warning(what: str, mend: str) -> Finding:
    return Finding(Level.WARNING, what, mend)


def problem(what: str, mend: str) -> Finding:
    return Finding(Level.PROBLEM, what, mend)


def as_text(findings: Iterable[Finding]) -> str:
    """For people: a line each, what to do below it."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:8} {finding.what}")
        if finding.mend:
            lines.append(f"         -> {finding.mend}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing keeps the agent from its work."""
    return all(finding.level is not Level.PROBLEM for finding in findings)
