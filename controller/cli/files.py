"""`longshore validate`, `convert` and `schema`: what can be done with a deployment.yml without any controller."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from controller.builds.targets import load_profiles
from controller.cli import output, session
from controller.cli.errors import Exit, UsageProblem, problem_line
from controller.cli.output import Format
from controller.errors import InvalidSpec, Problem
from controller.spec.loader import Reading, read_spec
from controller.spec.runtimes import load_runtimes
from controller.spec.schema import PROFILE, RUNTIME, schema_text
from controller.spec.writing import written

STDIN = Path("-")
# What a file on stdin is called in messages.
_STDIN_NAME = "<stdin>"


@dataclass(frozen=True)
class Verdict:
    """What there is to say about one file."""

    file: str
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def valid(self) -> bool:
        return not self.problems


def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE|FOLDER...", help="Files, or - for stdin; else the one here.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for problems.")] = False,
    form: session.Output = Format.TABLE,
) -> None:
    """Check deployment.yml files, without a controller.

    Every problem is told at once, with its place and what is allowed. Warnings are what of an older form was read as
    what, and what the target profiles and runtimes that come with Longshore do not have: a controller may know more.

    Exit codes: 0 all are valid, 2 some file is not, or cannot be read.

    Examples:

      longshore validate

      longshore validate examples/*/deployment.yml --strict

      longshore validate deployment.yml -o json
    """
    verdicts = [_judged(path, strict=strict) for path in files or [Path()]]
    if form.for_people:
        _tell(verdicts)
    elif form is Format.NAME:
        sys.stdout.write("".join(f"{verdict.file}\n" for verdict in verdicts if not verdict.valid))
    else:
        sys.stdout.write(output.encode([{**asdict(each), "valid": each.valid} for each in verdicts], form))
    sys.stdout.flush()
    if not all(verdict.valid for verdict in verdicts):
        raise typer.Exit(Exit.INVALID)


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="The file, or - for stdin.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="Write it there instead of to stdout.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the service, where the file has none.", show_default=False)] = "",
) -> None:
    """Write a deployment.yml of an older form as one of version 1, which means the same.

    What was read as what is told on stderr. Comments are not kept.

    Exit codes: 0 it is written, 2 the file is not valid, or cannot be read or written.

    Examples:

      longshore convert deployment.yaml

      longshore convert old/deployment.yaml --to deployment.yml

      longshore convert - --name digits < deployment.yaml
    """
    path = session.spec_path(file, None)
    data = _content(path)
    try:
        reading = read_spec(data, default_name=name)
    except InvalidSpec as refusal:
        for problem in refusal.problems:
            output.note(problem_line(problem, _called(path)))
        raise typer.Exit(Exit.INVALID) from None
    for warning in reading.warnings:
        output.note(f"warning: {problem_line(warning, _called(path))}")
    _write(written(reading), to)


def schema() -> None:
    """Print the JSON Schema of deployment.yml, for editors.

    With the language server for YAML, a first line of the file names it:

      # yaml-language-server: $schema=./deployment.schema.json

    Examples:

      longshore schema > deployment.schema.json
    """
    sys.stdout.write(shipped_schema())


def shipped_schema() -> str:
    """The schema, with the target profiles and runtimes that come with Longshore to choose from."""
    return schema_text({PROFILE: tuple(load_profiles()), RUNTIME: tuple(load_runtimes())})


def _judged(given: Path, *, strict: bool) -> Verdict:
    path = session.spec_path(given, None)
    try:
        data = _content(path)
    except UsageProblem as error:
        return Verdict(_called(path), (Problem("", 0, 0, str(error)),), ())
    problems, warnings = _found(data)
    return Verdict(_called(path), (*problems, *warnings) if strict else problems, () if strict else warnings)


def _found(data: bytes) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Problems of the file alone, and warnings: besides those of an older form what the shipped profiles refuse."""
    problems, reading = _refusal(data, known=False)
    by_profiles, _ = _refusal(data, known=True)
    more = tuple(problem for problem in by_profiles if problem not in problems)
    return problems, (*(reading.warnings if reading else ()), *more)


def _refusal(data: bytes, *, known: bool) -> tuple[tuple[Problem, ...], Reading | None]:
    try:
        return (), read_spec(data, load_profiles() if known else None)
    except InvalidSpec as refusal:
        return tuple(refusal.problems), None


def _tell(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        for problem in verdict.problems:
            print(problem_line(problem, verdict.file))
        for warning in verdict.warnings:
            print(f"{problem_line(warning, verdict.file)} (warning)")
        if verdict.valid:
            print(f"{verdict.file}: valid")


def _content(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}") from None


def _called(path: Path) -> str:
    return _STDIN_NAME if path == STDIN else str(path)


def _write(text: str, to: Path | None) -> None:
    if to is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"cannot write {to}: {error.strerror}") from None
