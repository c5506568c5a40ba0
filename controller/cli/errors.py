"""How the command ends: exit codes, and what people read when something went wrong."""

import os
import sys
import traceback
from enum import IntEnum
from pathlib import Path

from controller.errors import InvalidSpec, Problem
from longshore.errors import Reason
from longshore.failures import Failed, LongshoreError, WaitTimeout


class Exit(IntEnum):
    """Exit codes of `longshore`, for scripts."""

    OK = 0
    # What was asked for is not so: a build or deployment failed, or there is no such thing.
    FAILED = 1
    # The command line, the context or the deployment.yml is at fault.
    INVALID = 2
    TIMEOUT = 3
    # The controller does not answer, or does not accept the token.
    NO_ACCESS = 4
    # Ctrl-C, as shells count it.
    INTERRUPTED = 130


# What to look at where something of this kind does not exist.
_LISTED_BY: dict[str, str] = {
    Reason.NO_SUCH_BUILD: "; `longshore builds` lists those of this project",
    Reason.NO_SUCH_DEPLOYMENT: "; `longshore deployments` lists those of this project",
}


class UsageProblem(Exception):
    """The person can mend it: a setting, an option, a file."""


class Interrupted(Exception):
    """The person stopped waiting; the message says what goes on, and how to end that."""


class InvalidFile(Exception):
    """A deployment.yml with all that is wrong in it, and how it was called on the command line."""

    def __init__(self, path: Path, refusal: InvalidSpec) -> None:
        super().__init__(refusal.message)
        self.path = path
        self.problems = refusal.problems


def exit_code(error: Exception) -> Exit:
    """The exit code that stands for an error."""
    if isinstance(error, UsageProblem | InvalidFile):
        return Exit.INVALID
    if isinstance(error, Interrupted):
        return Exit.INTERRUPTED
    if isinstance(error, WaitTimeout):
        return Exit.TIMEOUT
    if isinstance(error, LongshoreError) and not isinstance(error, Failed):
        if error.code == "DEADLINE_EXCEEDED":
            return Exit.TIMEOUT
        if error.unreachable or error.unauthorized:
            return Exit.NO_ACCESS
        if error.invalid:
            return Exit.INVALID
    return Exit.FAILED


def explain(error: Exception, address: str = "") -> list[str]:
    """The lines that tell a person what went wrong and what to do; never empty."""
    if isinstance(error, InvalidFile):
        return [problem_line(problem, str(error.path)) for problem in error.problems]
    if isinstance(error, Failed):
        return [f"failed: {error.reason}: {error.message}", *(f"  | {line}" for line in error.lines)]
    if isinstance(error, LongshoreError):
        return _explain_call(error, address)
    if isinstance(error, Interrupted):
        return [str(error)]
    return [f"error: {error}"]


def _explain_call(error: LongshoreError, address: str) -> list[str]:
    if error.unreachable:
        return [f"error: cannot reach the controller at {address}: {error.message}"]
    if error.unauthorized:
        hint = "; `longshore login` stores a new one" if error.code == "UNAUTHENTICATED" else ""
        return [f"error: the controller refused the token: {error.message}{hint}"]
    if error.problems:
        return [f"error: {error.message}", *(f"  {problem_line(Problem(**vars(p)))}" for p in error.problems)]
    hint = _LISTED_BY.get(error.reason, "")
    return [f"error: {error.message}{hint}"]


def problem_line(problem: Problem, file: str = "") -> str:
    """`file:line:column: path: message`, as editors and terminals link it; without what is not known."""
    place = ":".join(str(number) for number in (problem.line, problem.column) if number)
    where = ":".join(part for part in (file, place) if part)
    return ": ".join(part for part in (where, problem.path, problem.message) if part)


def report(error: Exception, address: str = "") -> Exit:
    """Tells on stderr what went wrong; returns the exit code."""
    for line in explain(error, address):
        print(line, file=sys.stderr)
    if os.environ.get("LONGSHORE_DEBUG"):
        traceback.print_exception(error)
    return exit_code(error)


def report_unexpected(error: Exception) -> Exit:
    """For errors that nobody thought of: one line, and the traceback for those who ask for it."""
    hint = "set LONGSHORE_DEBUG=1 to see where, and please report it"
    print(f"internal error: {type(error).__name__}: {error}; {hint}", file=sys.stderr)
    if os.environ.get("LONGSHORE_DEBUG"):
        traceback.print_exception(error)
    return Exit.FAILED
