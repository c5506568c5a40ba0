"""Output: tables for people, JSON and YAML for programs. Programs get every field, under the contract's names."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A table that goes to a file or a pipe is never cut or wrapped.
_WIDE = 10_000

_STYLES = {
    "READY": "green",
    "RUNNING": "green",
    "SUCCEEDED": "green",
    "ONLINE": "green",
    "FAILED": "bold red",
    "BACKOFF": "red",
    "DEGRADED": "yellow",
    "OFFLINE": "red",
    "PENDING": "yellow",
    "CANCELLED": "yellow",
    "CORDONED": "yellow",
    "DRAINING": "yellow",
    "DRAINED": "yellow",
    "STOPPED": "dim",
    "DELETED": "dim",
}


class Format(StrEnum):
    TABLE = "table"
    # A table with more columns, where there are more to show.
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def for_people(self) -> bool:
        return self in (Format.TABLE, Format.WIDE)


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn. The last column may be cut on a narrow terminal."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def console(file: TextIO | None = None) -> Console:
    """A console that honours NO_COLOR and never cuts what goes to a file or a pipe."""
    target = file or sys.stdout
    return Console(file=target, width=None if target.isatty() else _WIDE, highlight=False, soft_wrap=False)


def as_dict(message: Message) -> dict[str, object]:
    """The protobuf JSON mapping with the contract's field names, every field present."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def encode(data: object, form: Format) -> str:
    """JSON or YAML text, ending in a line break."""
    if form is Format.JSON:
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def write_list(messages: Iterable[Message], names: Sequence[str], sheet: Sheet, form: Format) -> None:
    """A list in the form asked for; `names` and the rows of `sheet` belong to the messages in order."""
    write_records(map(as_dict, messages), names, sheet, form)


def write_one(message: Message, name: str, form: Format) -> None:
    """One thing for programs."""
    write_record(as_dict(message), name, form)


def write_records(records: Iterable[dict[str, object]], names: Sequence[str], sheet: Sheet, form: Format) -> None:
    """As `write_list`, of what is no message of the contract."""
    if form.for_people:
        draw(sheet)
    elif form is Format.NAME:
        sys.stdout.write("".join(f"{name}\n" for name in names))
    else:
        sys.stdout.write(encode(list(records), form))


def write_record(record: dict[str, object], name: str, form: Format) -> None:
    """As `write_one`, of what is no message of the contract."""
    sys.stdout.write(f"{name}\n" if form is Format.NAME else encode(record, form))


def write_item(message: Message, name: str, form: Format) -> None:
    """One entry of an endless list: JSON in one line, YAML as a document of its own. Written at once."""
    if form is Format.JSON:
        text = json.dumps(as_dict(message), ensure_ascii=False) + "\n"
    elif form is Format.YAML:
        text = "---\n" + encode(as_dict(message), form)
    else:
        text = f"{name}\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def draw(sheet: Sheet, target: Console | None = None) -> None:
    """Draws a table; an empty one as its head, so that nothing is to be guessed."""
    (target or console()).print(table(sheet), crop=False)


def table(sheet: Sheet) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True, padding=(0, 2, 0, 0))
    for number, column in enumerate(sheet.columns):
        last = number == len(sheet.columns) - 1
        made.add_column(column, no_wrap=True, overflow="ellipsis" if last else "fold")
    for row in sheet.rows:
        made.add_row(*(styled(cell) for cell in row))
    return made


def styled(cell: str) -> Text:
    """A cell as text, never as markup; states in their colour."""
    return Text(cell, style=_STYLES.get(cell.split(" ")[0], ""))


def note(text: str) -> None:
    """A word to the person beside the output proper: on stderr."""
    print(text, file=sys.stderr, flush=True)
