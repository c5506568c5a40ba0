"""`longshore login`."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli import session
from controller.cli.context import Context, context_path, is_file_name, save_context, use_context
from controller.cli.errors import UsageProblem
from longshore.client import Client


def login(
    address: Annotated[str, typer.Option(help="host:port of the controller.")],
    token: Annotated[str, typer.Option(help="API token.", envvar="LONGSHORE_TOKEN", show_default=False)],
    ca: Annotated[Path | None, typer.Option(help="The controller's CA, PEM.", show_default=False)] = None,
    user: session.User = "",
    project: session.ProjectName = "",
    context: session.ContextFile = None,
) -> None:
    """Store how to reach a controller, after trying it.

    With --context NAME under that name, beside others; it is the one in use from then on.

    Examples:

      longshore login --address controller.example:8443 --ca ca.pem --token "$TOKEN"

      longshore login --context lab --address lab.example:8443 --ca lab.pem --token "$TOKEN"
    """
    made = Context(address, token, _read(ca) if ca else "", user, project)
    session.Address.value = address
    with Client(address, token, made.ca or None, patience=session.PATIENCE) as client:
        next(client.list_builds(), None)
    path = context_path(context)
    save_context(path, made)
    print(f"stored in {path}")
    if context and not is_file_name(context):
        use_context(context)
        print(f"{context} is in use now; `longshore context use` chooses another")


def _read(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"cannot read {path}: {error}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageProblem(f"{path} holds no certificate in PEM")
    return text
