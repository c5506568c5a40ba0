"""`longshore devices`, what is about one of them, and `longshore enroll-token`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from controller.cli import device_steering, output, session, words
from controller.cli.default_group import DefaultGroup
from controller.cli.device_steering import pairs
from controller.cli.listing import Listing, show
from controller.cli.output import Format
from longshore.v1 import device_pb2

# What `longshore devices NAME` calls.
DEFAULT = "show"
Label = Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value; may be given again.")]


class DevicesGroup(DefaultGroup):
    default = DEFAULT


app = typer.Typer(
    cls=DevicesGroup,
    name="devices",
    help="List enrolled devices; show, examine, label, drain or delete one.",
    no_args_is_help=False,
)


@app.command(name=DEFAULT, hidden=True)
def devices(
    name: Annotated[str, typer.Argument(help="Show this one in full (name or id).", show_default=False)] = "",
    label: Label = None,
    profile: Annotated[str, typer.Option(help="Only of this target profile.", show_default=False)] = "",
    watch: session.Watching = False,
    interval: session.Interval = 2.0,
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List enrolled devices, or show one.

    Examples:

      longshore devices

      longshore devices -o wide

      longshore devices --label site=hall-1 -o name

      longshore devices edge-7

      longshore devices --watch
    """
    with session.session(context) as here:
        if name:
            _show(here.client.get_device(name), form)
            return
        wanted = pairs(label)

        def look() -> Listing:
            entries = list(here.client.list_devices(wanted, profile))
            sheet = words.devices(entries, datetime.now(UTC), wide=form is Format.WIDE)
            return Listing(entries, [entry.name for entry in entries], sheet, [entry.id for entry in entries])

        show(look, form, watch=watch, interval=interval)


@app.command()
def facts(
    name: device_steering.Name,
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Show what a device tells of itself: board, system, disks, accelerators, and what its backend can do.

    Examples:

      longshore devices facts edge-7

      longshore devices facts edge-7 -o json
    """
    with session.session(context) as here:
        device = here.client.get_device(name)
    if form.for_people:
        output.draw(words.device_facts(device.facts))
    else:
        output.write_one(device.facts, device.name, form)


@app.command()
def delete(
    name: device_steering.Name,
    context: session.ContextFile = None,
) -> None:
    """Make a machine no device any more.

    Its certificate is refused from now on, no deployment counts on it, and its name is free. What it runs, it runs on
    until `longshore-edge-agent leave` is called there.

    Examples:

      longshore devices delete edge-7
    """
    with session.session(context) as here:
        here.client.delete_device(name)
    print(f"{name} is no device any more")


app.command()(device_steering.label)
app.command()(device_steering.cordon)
app.command()(device_steering.drain)
app.command()(device_steering.uncordon)


def enroll_token(
    name: Annotated[str, typer.Option(help="Name of the device; else it proposes one.", show_default=False)] = "",
    label: Label = None,
    profile: Annotated[str, typer.Option(help="Target profile; else it finds out.", show_default=False)] = "",
    lifetime: Annotated[str, typer.Option(help="How long the token may be used: 30m, 24h.")] = "1h",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Make a one-time token with which a machine becomes a device.

    Only the token goes to stdout, so that it can be piped.

    Examples:

      longshore enroll-token --name edge-7 --label site=hall-1

      ssh edge-7 longshore-edge-agent enroll "$(longshore enroll-token)"
    """
    limit = session.seconds(lifetime)
    with session.session(context) as here:
        made = here.client.create_enroll_token(
            device_name=name,
            labels=pairs(label),
            profile=profile,
            lifetime=timedelta(seconds=limit) if limit is not None else None,
        )
    if form in (Format.JSON, Format.YAML):
        output.write_one(made, made.token, form)
        return
    print(made.token)
    output.note(f"good once, until {words.clock(made.expires)} UTC: longshore-edge-agent enroll TOKEN")


def _show(device: device_pb2.Device, form: Format) -> None:
    if not form.for_people:
        output.write_one(device, device.name, form)
        return
    output.draw(words.devices([device], datetime.now(UTC)))
    print()
    output.draw(words.device_facts(device.facts))
    if told := words.scheduling_told(device):
        print(f"\n{told}")
    print(f"\ndesired state: generation {device.generation}, the device has {device.observed_generation}")
