"""Lists: shown once, or watched."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from google.protobuf.message import Message
from rich.live import Live

from controller.cli import output
from controller.cli.output import Format, Sheet
from longshore.v1 import deployment_pb2


@dataclass(frozen=True)
class Listing:
    """What a list has at one moment; messages, names, rows of the sheet and ids belong together.

    `ids` tell the entries apart, where several may have one name.
    """

    messages: Sequence[Message]
    names: Sequence[str]
    sheet: Sheet
    ids: Sequence[str]


Look = Callable[[], Listing]


def of_instances(entries: Sequence[deployment_pb2.Instance], sheet: Sheet) -> Listing:
    """Instances of several projects may go by one name."""
    names = [f"{entry.deployment_name}/{entry.device_name}" for entry in entries]
    return Listing(entries, names, sheet, [f"{entry.deployment_id}/{entry.device_id}" for entry in entries])


def show(look: Look, form: Format, *, watch: bool = False, interval: float = 2.0) -> None:
    """Writes the list in the form asked for; with `watch` until somebody ends it."""
    if watch and form.for_people:
        _redraw(look, interval)
    elif watch:
        for message, name in changed(look, lambda: time.sleep(interval)):
            output.write_item(message, name, form)
    else:
        found = look()
        output.write_list(found.messages, found.names, found.sheet, form)


def changed(look: Look, pause: Callable[[], None]) -> Iterator[tuple[Message, str]]:
    """Each entry as it is at first, and again whenever it is new or another. Never ends by itself."""
    known: Mapping[str, Message] = {}
    while True:
        found = look()
        for one, message, name in zip(found.ids, found.messages, found.names, strict=True):
            if known.get(one) != message:
                yield message, name
        known = dict(zip(found.ids, found.messages, strict=True))
        pause()


def _redraw(look: Look, interval: float) -> None:
    """One picture in the place of the one before; where there is no terminal, one after the other."""
    screen = output.console()
    with Live(auto_refresh=False, console=screen) if screen.is_terminal else nullcontext() as live:
        while True:
            sheet = look().sheet
            if live is not None:
                live.update(output.table(sheet), refresh=True)
            else:
                output.draw(sheet, screen)
                sys.stdout.flush()
            time.sleep(interval)
