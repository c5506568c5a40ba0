"""`longshore builds`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from controller.cli import build_words, completion, output, session, words
from controller.cli.listing import Listing, show
from controller.cli.output import Format
from longshore.v1 import build_pb2


def builds(
    build_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Show this one in full.", show_default=False, autocompletion=completion.build_ids
        ),
    ] = "",
    watch: session.Watching = False,
    interval: session.Interval = 2.0,
    everything: session.AllProjects = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List the builds of a project, or show one.

    Examples:

      longshore builds

      longshore builds ID -o wide

      longshore builds --all-projects -o json

      longshore builds --watch
    """
    with session.session(context, user, project) as here:
        if build_id:
            _show(here.client.get_build(build_id), form)
            return

        def look() -> Listing:
            entries = list(here.client.list_builds(None if everything else here.project))
            sheet = build_words.builds(entries, datetime.now(UTC), owner=everything, wide=form is Format.WIDE)
            ids = [entry.id for entry in entries]
            return Listing(entries, ids, sheet, ids)

        show(look, form, watch=watch, interval=interval)


def _show(build: build_pb2.Build, form: Format) -> None:
    if not form.for_people:
        output.write_one(build, build.id, form)
        return
    now = datetime.now(UTC)
    output.draw(build_words.builds([build], now, wide=form is Format.WIDE))
    print()
    output.draw(build_words.targets(build.targets, now, wide=form is Format.WIDE))
    for target in build.targets:
        if details := list(_details(target)):
            print(f"\n{build_words.target_name(target)}:")
            print("\n".join(f"  {line}" for line in details))
    if build.image_index.digest:
        print(f"\nall: {build_words.artifact(build.image_index)}")


def _details(target: build_pb2.BuildTarget) -> Iterator[str]:
    artifact = target.artifact
    if artifact.digest:
        yield f"{build_words.artifact(artifact)} ({words.size(artifact.size_bytes)})"
    yield from target.notes
    if target.failed_step:
        yield f"step: {target.failed_step}"
    yield from (f"| {line}" for line in target.last_lines)
