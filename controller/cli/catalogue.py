"""`longshore images`, `targets`, `runtimes`, `form` and `hosts`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from controller.cli import build_words, output, session
from controller.cli.output import Format


def images(
    everything: session.AllProjects = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List the images and bundles that are in the registry, newest first.

    Examples:

      longshore images

      longshore images --all-projects -o wide
    """
    with session.session(context, user, project) as here:
        entries = list(here.client.list_images(None if everything else here.project))
    names = [build_words.artifact(entry.artifact) for entry in entries]
    sheet = build_words.images(entries, datetime.now(UTC), owner=everything, wide=form is Format.WIDE)
    output.write_list(entries, names, sheet, form)


def targets(form: session.Output = Format.TABLE, context: session.ContextFile = None) -> None:
    """List the kinds of devices that can be built for.

    Examples:

      longshore targets

      longshore targets -o wide
    """
    with session.session(context) as here:
        entries = here.client.list_target_profiles()
    sheet = build_words.profiles(entries, wide=form is Format.WIDE)
    output.write_list(entries, [entry.name for entry in entries], sheet, form)


def runtimes(form: session.Output = Format.TABLE, context: session.ContextFile = None) -> None:
    """List what can execute a model, and on which targets.

    Examples:

      longshore runtimes

      longshore runtimes -o yaml
    """
    with session.session(context) as here:
        entries = here.client.list_runtimes()
    sheet = build_words.runtimes(entries, wide=form is Format.WIDE)
    output.write_list(entries, [entry.kind for entry in entries], sheet, form)


def form_fields(
    below: Annotated[str, typer.Argument(metavar="FIELD", help="Only fields below this one.", show_default=False)] = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List every field of a deployment.yml: type, default, what is allowed.

    Examples:

      longshore form

      longshore form build.packages -o wide

      longshore form -o json
    """
    with session.session(context) as here:
        entries = [entry for entry in here.client.get_build_form() if _is_below(entry.path, below)]
    sheet = build_words.form(entries, wide=form is Format.WIDE)
    output.write_list(entries, [entry.path for entry in entries], sheet, form)


def _is_below(path: str, above: str) -> bool:
    return not above or path == above or path.startswith((f"{above}.", f"{above}["))


def hosts(form: session.Output = Format.TABLE, context: session.ContextFile = None) -> None:
    """List the builder hosts and what each of them is doing. For administrators.

    Examples:

      longshore hosts

      longshore hosts -o json
    """
    with session.session(context) as here:
        entries = here.client.list_builder_hosts()
    output.write_list(entries, [entry.name for entry in entries], build_words.hosts(entries, datetime.now(UTC)), form)
