"""`longshore deployments history`, `diff` and `undo`."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import output, session, words
from controller.cli.build_inputs import given_values
from controller.cli.deploying import await_ready, tell
from controller.cli.errors import UsageProblem
from controller.cli.output import Format, Sheet
from controller.cli.progress import progress
from longshore.client import Answer
from longshore.v1 import deployment_pb2

# A value that is longer is cut, for people.
LONGEST_VALUE = 60
# So many changes of a revision stand in the list.
SHOWN_CHANGES = 3


def history(
    name: session.DeploymentName,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List the revisions of a deployment, newest first: who made each, when, and what it changed.

    Examples:

      longshore deployments history digits

      longshore deployments history digits -o wide
    """
    with session.session(context, user, project) as here:
        deployment = here.client.find_deployment(here.project, name).deployment
        entries = list(here.client.list_revisions(deployment.id))
    names = [str(entry.revision) for entry in entries]
    output.write_list(entries, names, sheet(entries, wide=form is Format.WIDE), form)


def diff(
    name: session.DeploymentName,
    old: Annotated[int, typer.Option("--from", min=0, help="From this revision; else the one before.")] = 0,
    new: Annotated[int, typer.Option("--to", min=0, help="To this revision; else the present one.")] = 0,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="To this deployment.yml.", show_default=False)
    ] = None,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Show what differs between two revisions, or between what is deployed and a file: fields, and contents of files.

    Ends with 0 whether or not something differs.

    Examples:

      longshore deployments diff digits

      longshore deployments diff digits --from 2 --to 5

      longshore deployments diff digits -f deployment.yml
    """
    if file and new:
        raise UsageProblem("--file takes the place of the second revision: it goes without --to")
    path = session.spec_path(None, file) if file else None
    files = session.read_spec(path).build.all_files if path else []
    with session.session(context, user, project) as here:
        deployment = here.client.find_deployment(here.project, name).deployment
        if path:
            found = here.client.diff_with_file(deployment.id, path, files=files, from_revision=old)
        else:
            found = here.client.diff_revisions(deployment.id, from_revision=old, to_revision=new)
    if not form.for_people:
        output.write_one(found, name, form)
        return
    print(f"--- {name} revision {found.from_revision}")
    print(f"+++ {path if path else f'{name} revision {found.to_revision}'}")
    for line in lines(found.changes, cut=form is not Format.WIDE):
        print(line)


def undo(
    name: session.DeploymentName,
    to: Annotated[int, typer.Option("--to", min=0, help="The revision; else the last one before that was built.")] = 0,
    wait: session.Wait = False,
    timeout: session.Timeout = "",
    secret: session.Secrets = None,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Go back to an earlier revision: makes a new one that is equal to it, without building.

    Secrets that are not given keep the value of the present revision.

    Examples:

      longshore deployments undo digits --wait

      longshore deployments undo digits --to 3
    """
    limit = session.seconds(timeout)
    with session.session(context, user, project) as here, progress(show_log=False) as view:
        began = time.monotonic()
        deployment = here.client.find_deployment(here.project, name).deployment
        applied = here.client.undo(deployment.id, to, secrets=given_values(secret or ()))
        answer = await_ready(here, applied, view, limit) if wait else Answer(deployment=applied.deployment)
    tell(answer, form, time.monotonic() - began if wait else None)


def sheet(entries: Iterable[deployment_pb2.Revision], *, wide: bool) -> Sheet:
    """Revisions as a table; `wide` shows each change whole."""
    columns = ("REVISION", "CREATED", "BY", "BUILD", "CHANGES")
    rows = tuple(
        (str(one.revision), words.clock(one.created), one.author or "-", one.build_id, _summary(one, wide))
        for one in entries
    )
    return Sheet(columns, rows)


def _summary(revision: deployment_pb2.Revision, wide: bool) -> str:
    back = [f"as revision {revision.undo_of}"] if revision.undo_of else []
    first = ["first"] if revision.revision == 1 else []
    changes = revision.changes if wide else revision.changes[:SHOWN_CHANGES]
    told = [_short(change) if not wide else _whole(change) for change in changes]
    more = [f"and {len(revision.changes) - len(told)} more"] if len(told) < len(revision.changes) else []
    return "; ".join([*first, *back, *told, *more]) or "nothing"


def _sides(change: deployment_pb2.FieldChange) -> tuple[str | None, str | None]:
    before = change.before if change.HasField("before") else None
    return before, change.after if change.HasField("after") else None


def _short(change: deployment_pb2.FieldChange) -> str:
    before, after = _sides(change)
    return f"{'+' if before is None else '-' if after is None else ''}{change.path}"


def _whole(change: deployment_pb2.FieldChange) -> str:
    before, after = _sides(change)
    return f"{change.path}: {before or '-'} -> {after or '-'}"


def lines(changes: Iterable[deployment_pb2.FieldChange], *, cut: bool) -> Iterable[str]:
    """A difference as people know it: a line with - and one with + for each field."""
    for change in changes:
        for sign, text in zip("-+", _sides(change), strict=True):
            if text is not None:
                yield f"{sign} {change.path}: {_value(text, cut)}"


def _value(text: str, cut: bool) -> str:
    """Plain where that is plain, as YAML would have it."""
    value = json.loads(text)
    plain = value if isinstance(value, str) and value.isprintable() and value.strip() == value and value else text
    return plain if not cut or len(plain) <= LONGEST_VALUE else f"{plain[: LONGEST_VALUE - 3]}..."
