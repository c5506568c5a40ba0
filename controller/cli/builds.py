"""`longshore builds`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from controller.cli import output, session, words
from controller.cli.output import Format
from longshore.v1 import build_pb2


def builds(
    build_id: Annotated[str, typer.Argument(help="Show this one in full.", show_default=False)] = "",
    everything: session.AllProjects = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List the builds of a project, or show one.

    Examples:

      longshore builds

      longshore builds 01JD7 -o yaml
    """
    with session.session(context, user, project) as here:
        if build_id:
            _show(here.client.get_build(build_id), form)
            return
        entries = list(here.client.list_builds(None if everything else here.project))
    sheet = words.builds(entries, datetime.now(UTC), owner=everything)
    output.write_list(entries, [entry.id for entry in entries], sheet, form)


def _show(build: build_pb2.Build, form: Format) -> None:
    if form is not Format.TABLE:
        output.write_one(build, build.id, form)
        return
    output.draw(words.builds([build], datetime.now(UTC)))
    for target in build.targets:
        why = words.said(target.reason, target.message)
        print(f"\n{target.profile}: {words.build_state(target.state)} {why}".rstrip())
        if target.artifact.digest:
            artifact = target.artifact
            print(f"  {artifact.repository}@{artifact.digest} ({words.size(artifact.size_bytes)})")
        if target.failed_step:
            print(f"  step: {target.failed_step}")
        for line in target.last_lines:
            print(f"  | {line}")
