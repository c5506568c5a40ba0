"""`longshore top`: what the instances use."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from controller.cli import session, words
from controller.cli.listing import Listing, of_instances, show
from controller.cli.output import Format
from longshore.v1 import types_pb2

RUNNING = types_pb2.INSTANCE_STATE_RUNNING


def top(
    name: Annotated[str, typer.Argument(help="Only those of this deployment.", show_default=False)] = "",
    device: Annotated[str, typer.Option(help="Only those on this device.", show_default=False)] = "",
    watch: session.Watching = False,
    interval: session.Interval = 5.0,
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
        owner = None if everything else here.project
        deployment_id = here.client.find_deployment(here.project, name).deployment.id if name else ""

        def look() -> Listing:
            found = here.client.list_instances(owner, deployment_id=deployment_id, device_id=device, states=[RUNNING])
            entries = list(found)
            return of_instances(entries, words.top(entries, datetime.now(UTC)))

        show(look, form, watch=watch, interval=interval)
