"""`longshore devices label`, `cordon`, `drain` and `uncordon`."""

from typing import Annotated

import typer

from controller.cli import completion, output, session, words
from controller.cli.errors import UsageProblem
from controller.cli.output import Format
from longshore.calls import Deadline
from longshore.client import Client
from longshore.failures import WaitTimeout
from longshore.v1 import device_pb2

Name = Annotated[
    str,
    typer.Argument(help="The device (name or id).", show_default=False, autocompletion=completion.device_names),
]
Reason = Annotated[str, typer.Option(help="Why, for those who see it.", show_default=False)]


def label(
    name: Name,
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="Labels to set or to remove.")],
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Set and remove labels; deployments move to where they belong then.

    Examples:

      longshore devices label edge-7 site=hall-2 line=4

      longshore devices label edge-7 line-
    """
    wanted, removed = label_changes(changes)
    with session.session(context) as here:
        device = here.client.label_device(name, wanted, remove=removed)
    if form.for_people:
        print(f"{device.name}: {words.labels(device.labels)}")
    else:
        output.write_one(device, device.name, form)


def cordon(
    name: Name, reason: Reason = "", form: session.Output = Format.TABLE, context: session.ContextFile = None
) -> None:
    """Place nothing new on a device; what runs there runs on, and is updated.

    Examples:

      longshore devices cordon edge-7 --reason "flaky power"
    """
    with session.session(context) as here:
        device = here.client.cordon_device(name, reason)
    _tell(device, form)


def drain(
    name: Name,
    reason: Reason = "",
    no_wait: session.NoWait = False,
    timeout: session.Timeout = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Stop all that runs on a device and place nothing there, until it is uncordoned.

    The device keeps what it fetched, and volumes. Waits until it has said that nothing runs any more.

    Examples:

      longshore devices drain edge-7 --reason "new disk" --timeout 5m

      longshore devices uncordon edge-7
    """
    limit = session.seconds(timeout)
    with session.session(context) as here:
        device = here.client.drain_device(name, reason)
        if not no_wait:
            device = await_drained(here.client, device.id, Deadline.after(limit))
    _tell(device, form)


def uncordon(name: Name, form: session.Output = Format.TABLE, context: session.ContextFile = None) -> None:
    """Let deployments come (back) to a device that was cordoned or drained.

    Examples:

      longshore devices uncordon edge-7
    """
    with session.session(context) as here:
        device = here.client.uncordon_device(name)
    _tell(device, form)


def await_drained(client: Client, device_id: str, deadline: Deadline) -> device_pb2.Device:
    """The device once nothing of it runs, or the drain has ended. Raises WaitTimeout with what is left."""
    said = ""
    try:
        for device in client.follow_device(device_id, deadline=deadline):
            if device.scheduling != device_pb2.DEVICE_SCHEDULING_DRAINING:
                return device
            if device.scheduling_message != said:
                said = device.scheduling_message
                output.note(said)
    except WaitTimeout:
        raise WaitTimeout(f"the device is not drained in time: {said}") from None
    raise AssertionError("a device is followed without an end")


def label_changes(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """What to set and what to remove, from texts `key=value` and `key-`. Raises UsageProblem for anything else."""
    removed = [text.removesuffix("-") for text in given if "=" not in text and text.endswith("-")]
    return pairs([text for text in given if "=" in text or not text.endswith("-")]), removed


def pairs(given: list[str] | None) -> dict[str, str]:
    """Labels from `key=value` texts; UsageProblem for anything else."""
    found: dict[str, str] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageProblem(f"'{text}' is no label; expected key=value")
        found[key] = value
    return found


def _tell(device: device_pb2.Device, form: Format) -> None:
    if form.for_people:
        print(f"{device.name}: {words.scheduling_told(device) or words.scheduling(device)}")
    else:
        output.write_one(device, device.name, form)
