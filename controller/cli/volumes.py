"""`longshore volume` and `longshore volumes`: models and data that devices mount."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import output, session, words
from controller.cli.output import Format, Sheet
from controller.cli.progress import progress
from longshore.v1 import volume_pb2

HELP = """Models and data apart from images: push, list, show, delete.

Examples:

  longshore volume list
"""
app = typer.Typer(name="volume", help=HELP)
Name = Annotated[str, typer.Argument(help="Of the volume.", show_default=False)]


@app.command()
def push(
    name: Name,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.", show_default=False)],
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Make a version of a volume from files; it is the latest one then.

    A file lies in the volume under its own name, those of a folder as they lie in the folder. The same files are the
    same version. What the controller has is not sent again.

    Examples:

      longshore volume push digits-model model/digits.onnx

      longshore volume push faces data/faces/ -o name
    """
    with session.session(context, user, project) as here, progress(show_log=False) as view:
        pushed = here.client.push_volume(name, here.project, paths, on_progress=view.upload)
    version = pushed.version
    if form is Format.NAME:
        output.write_one(version, version.digest, form)
    elif not form.for_people:
        output.write_one(pushed, version.digest, form)
    else:
        sent = f"{words.size(pushed.sent_bytes)} of {words.size(version.size_bytes)} were new"
        print(f"{name} is {version.digest} now ({version.files} files, {sent})")


@app.command(name="list")
def volumes(
    everything: session.AllProjects = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List the volumes of a project, each with its latest version.

    Examples:

      longshore volumes

      longshore volume list

      longshore volume list --all-projects -o json
    """
    with session.session(context, user, project) as here:
        found = here.client.list_volumes(None if everything else here.project)
        entries = [entry for entry in found if entry.latest]
    output.write_list(entries, [entry.name for entry in entries], _sheet(entries, everything), form)


@app.command()
def show(
    name: Name,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Show all versions of a volume, the latest first.

    Examples:

      longshore volume show digits-model

      longshore volume show digits-model -o json
    """
    with session.session(context, user, project) as here:
        # For the error where there is none.
        here.client.get_volume(here.project, name)
        entries = list(here.client.list_volumes(here.project, name=name))
    output.write_list(entries, [entry.digest for entry in entries], _sheet(entries, False), form)


@app.command()
def delete(
    name: Name,
    version: Annotated[str, typer.Option(help="This digest only.", show_default=False)] = "",
    user: session.User = "",
    project: session.ProjectName = "",
    context: session.ContextFile = None,
) -> None:
    """Forget a volume, or one version of it. What a deployment has, or a device may return to, stays.

    Examples:

      longshore volume delete digits-model

      longshore volume delete digits-model --version sha256:4f1c...
    """
    with session.session(context, user, project) as here:
        here.client.delete_volume(here.project, name, version)
    print(f"{name}{'@' if version else ''}{version} is deleted")
    sys.stdout.flush()


def _sheet(entries: list[volume_pb2.VolumeVersion], owner: bool) -> Sheet:
    now = datetime.now(UTC)
    columns = ("NAME", "VERSION", "LATEST", "FILES", "SIZE", "PUSHED")
    rows = tuple(
        (
            entry.name,
            entry.digest,
            "yes" if entry.latest else "no",
            str(entry.files),
            words.size(entry.size_bytes),
            f"{words.age(entry.pushed, now)} ago",
        )
        for entry in entries
    )
    return words.owned(columns, rows, [entry.project for entry in entries] if owner else None)
