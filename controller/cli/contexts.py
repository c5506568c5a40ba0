"""`longshore context`: which controller is spoken to, where there are several."""

import os
from typing import Annotated

import typer

from controller.cli import completion, output
from controller.cli.context import (
    DEFAULT_NAME,
    context_names,
    context_path,
    current_name,
    is_file_name,
    load_context,
    meant_name,
    named_path,
    use_context,
)
from controller.cli.errors import UsageProblem
from controller.cli.output import Format, Sheet
from controller.cli.session import Output

HELP = """List and choose the controllers that `longshore login` knows.

Examples:

  longshore context list

  longshore context use lab
"""
app = typer.Typer(name="context", help=HELP, no_args_is_help=True)
SHOWN = ("name", "address", "user", "project")
Name = Annotated[str, typer.Argument(help="Name of the context.", autocompletion=completion.contexts)]


@app.command(name="list")
def list_(form: Output = Format.TABLE) -> None:
    """List the contexts; the one in use has a star. Tokens are never shown.

    Examples:

      longshore context list

      longshore context list -o name
    """
    records = [_record(name) for name in context_names()]
    rows = tuple(("*" if one["current"] else "", *(str(one[key] or "-") for key in SHOWN)) for one in records)
    sheet = Sheet(("", *(key.upper() for key in SHOWN)), rows)
    output.write_records(records, [str(one["name"]) for one in records], sheet, form)


@app.command()
def use(name: Name) -> None:
    """Speak to this controller from now on, wherever no other is named.

    --context and LONGSHORE_CONTEXT go before it.

    Examples:

      longshore context use lab
    """
    _require(name)
    use_context(name)
    print(f"{name} is in use now")
    if shadow := os.environ.get("LONGSHORE_CONTEXT"):
        output.note(f"LONGSHORE_CONTEXT goes before it, and names {shadow}")


@app.command()
def current(form: Output = Format.TABLE) -> None:
    """Show which controller is spoken to.

    Examples:

      longshore context current

      longshore context current -o json
    """
    chosen = meant_name()
    record = _record(chosen)
    if form.for_people:
        print(f"{chosen}: {record['address']}")
    else:
        output.write_record(record, chosen, form)


@app.command()
def delete(name: Name) -> None:
    """Forget a context, with its token.

    Examples:

      longshore context delete lab
    """
    _require(name)
    named_path(name).unlink()
    if current_name() == name:
        use_context(DEFAULT_NAME)
    print(f"{name} is forgotten")


def _record(name: str) -> dict[str, object]:
    path = context_path(name)
    context = load_context(path)
    return {
        "name": name, "current": name == meant_name(), "address": context.address, "user": context.user,
        "project": context.project, "file": str(path),
    }  # fmt: skip


def _require(name: str) -> None:
    known = context_names()
    if is_file_name(name) or name not in known:
        raise UsageProblem(f"no context {name}; there are: {', '.join(known) or 'none'}")
