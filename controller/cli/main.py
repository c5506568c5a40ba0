"""The `longshore` command."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from controller.cli import (
    build_group,
    builds,
    catalogue,
    contexts,
    deploying,
    deployment_group,
    deployments,
    devices,
    events,
    files,
    inside,
    login,
    top,
    volumes,
    waiting,
)
from controller.cli.errors import Exit, Interrupted, InvalidFile, UsageProblem, report, report_unexpected
from controller.cli.session import Address
from longshore.failures import LongshoreError

app = typer.Typer(
    name="longshore",
    help="Build trained models and run them on edge devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(deploying.deploy)
app.add_typer(build_group.app)
app.add_typer(deployment_group.app)
app.command()(deployments.instances)
app.command()(top.top)
app.add_typer(devices.app)
app.command()(builds.builds)
app.command()(catalogue.images)
app.add_typer(volumes.app)
app.command(name="volumes")(volumes.volumes)
app.command()(catalogue.targets)
app.command()(catalogue.runtimes)
app.command(name="form")(catalogue.form_fields)
app.command()(files.validate)
app.command()(files.convert)
app.command()(files.schema)
app.command()(catalogue.hosts)
app.command()(events.events)
app.command()(events.logs)
app.command(name="exec")(inside.exec_)
app.command(name="port-forward")(inside.port_forward)
app.command()(deployments.stop)
app.command()(deployments.delete)
app.command(name="enroll-token")(devices.enroll_token)
app.command()(login.login)
app.add_typer(contexts.app)
app.command()(waiting.wait)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"longshore {version('longshore')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """Build trained models and run them on edge devices.

    The controller is that of `longshore login` or `longshore context use`, of LONGSHORE_CONTEXT, or of --context;
    --user and --project name whose things are meant.

    Exit codes: 0 it is so, 1 it failed, 2 wrong command line or file, 3 timeout, 4 no access to the controller,
    130 Ctrl-C.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns the exit code. Errors are told on stderr, never as a traceback."""
    try:
        app(list(arguments), prog_name="longshore")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.OK
    except (LongshoreError, UsageProblem, InvalidFile, Interrupted) as error:
        return report(error, Address.value)
    except Exception as error:  # noqa: BLE001  # the last resort of a command for people; the traceback is on request
        return report_unexpected(error)
    return Exit.OK


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
