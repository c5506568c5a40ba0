"""`longshore top`: what the instances use."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer
from rich.live import Live

from controller.cli import output, session, words
from controller.cli.output import Format
from controller.cli.session import Session
from longshore.v1 import deployment_pb2

RUNNING = "RUNNING"


def top(
    name: Annotated[str, typer.Argument(help="Only those of this deployment.", show_default=False)] = "",
    device: Annotated[str, typer.Option(help="Only those on this device.", show_default=False)] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Draw it again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two pictures of --watch.")] = 5.0,
    everything: session.AllProjects = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Show what running instances use: processor, memory, network, disks, accelerators.

    CPU is the share of one core between the last two measurements; bytes are since the start of the instance. Devices
    measure now and then (`metrics_interval` of the agent): the last column tells how long ago.

    Examples:

      longshore top

      longshore top digits --watch
    """
    with session.session(context, user, project) as here:
        deployment_id = here.client.find_deployment(here.project, name).deployment.id if name else ""

        def running() -> list[deployment_pb2.Instance]:
            return _running(here, deployment_id, device, everything=everything)

        if watch and form.for_people:
            _watch(running, interval)
        entries = running()
    names = [f"{entry.deployment_name}/{entry.device_name}" for entry in entries]
    output.write_list(entries, names, words.top(entries, datetime.now(UTC)), form)


def _watch(running: Callable[[], Sequence[deployment_pb2.Instance]], interval: float) -> NoReturn:
    """One picture in the place of the one before; where there is no terminal, one after the other."""
    screen = output.console()
    with Live(auto_refresh=False, console=screen) if screen.is_terminal else nullcontext() as live:
        while True:
            sheet = words.top(running(), datetime.now(UTC))
            if live is not None:
                live.update(output.table(sheet), refresh=True)
            else:
                output.draw(sheet, screen)
                sys.stdout.flush()
            time.sleep(interval)


def _running(here: Session, deployment_id: str, device: str, *, everything: bool) -> list[deployment_pb2.Instance]:
    found = here.client.list_instances(None if everything else here.project, deployment_id=deployment_id)
    return [
        entry
        for entry in found
        if words.instance_state(entry.status) == RUNNING and device in ("", entry.device_name, entry.device_id)
    ]
