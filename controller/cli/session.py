"""What every command has in common: its options, the connection, the project, the file that it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from controller.cli import completion
from controller.cli.context import Context, context_path, load_context, owner
from controller.cli.errors import InvalidFile, UsageProblem, problem_line
from controller.cli.output import Format, note
from controller.errors import InvalidSpec
from controller.spec.fields import Duration
from controller.spec.loader import Reading
from controller.spec.loader import read_spec as load_reading
from controller.spec.model import Spec
from longshore.client import Answer, Client
from longshore.failures import LongshoreError
from longshore.v1 import types_pb2

# Long enough for a controller that restarts, short enough for a person who waits.
PATIENCE = 6.0
# In a folder; older programs write the second.
_FILE_NAMES = ("deployment.yml", "deployment.yaml")

ContextFile = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="Which controller: name or file of a context.",
        envvar="LONGSHORE_CONTEXT",
        show_default=False,
        autocompletion=completion.contexts,
    ),
]
User = Annotated[str, typer.Option("--user", "-u", help="User id.", envvar="LONGSHORE_USER", show_default=False)]
ProjectName = Annotated[
    str, typer.Option("--project", "-p", help="Project id.", envvar="LONGSHORE_PROJECT", show_default=False)
]
Output = Annotated[
    Format, typer.Option("--output", "-o", help="table or wide for people; json, yaml, name for programs.")
]
Watching = Annotated[
    bool, typer.Option("--watch", "-w", help="Show it again and again until Ctrl-C; for programs, what has changed.")
]
Interval = Annotated[float, typer.Option(min=0.2, help="Seconds between two looks of --watch.")]
SpecFile = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", help="The deployment.yml, its files beside it; else the one here.", show_default=False
    ),
]
DeviceName = Annotated[str, typer.Option("--device", help="On this device, where several run it.", show_default=False)]
DeploymentName = Annotated[
    str, typer.Argument(help="Name of the deployment.", autocompletion=completion.deployment_names)
]
Secrets = Annotated[
    list[str] | None, typer.Option("--secret", help="name=FILE or name=env:VARIABLE; may be given again.")
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is ready on every device.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once it is accepted.")]
Timeout = Annotated[str, typer.Option(help="Give up waiting after this long: 90s, 10m.", show_default=False)]
AllProjects = Annotated[bool, typer.Option("--all-projects", "-A", help="Everything that the token may see.")]


@dataclass(frozen=True)
class Session:
    """A connection, and the project that the command speaks of."""

    client: Client
    context: Context
    project: types_pb2.Project


class Address:
    """Whom the last session spoke to, for the error messages of `main`."""

    value = ""


@contextmanager
def session(context_file: str | None, user: str = "", project_id: str = "") -> Iterator[Session]:
    """A session with the controller of the context. Flags and variables win over the context's names."""
    context = load_context(context_path(context_file))
    Address.value = context.address
    with Client(context.address, context.token, context.ca or None, patience=PATIENCE) as client:
        yield Session(client, context, owner(context, user, project_id))


def device_id(answer: Answer, device: str) -> str:
    """The device among those of the deployment, by name or id: that needs no right to see devices. Empty for empty."""
    if not device:
        return ""
    for instance in answer.instances:
        if device in (instance.device_name, instance.device_id):
            return instance.device_id
    known = ", ".join(instance.device_name for instance in answer.instances) or "none"
    raise LongshoreError("NO_SUCH_INSTANCE", f"{answer.deployment.name} does not run on {device}; it runs on: {known}")


def read_spec(path: Path) -> Spec:
    """The valid spec in the file, and on stderr what was read as what in one of an older form; InvalidFile with every
    problem, before anything is sent."""
    reading = reading_of(path)
    for warning in reading.warnings:
        note(f"warning: {problem_line(warning, str(path))}")
    return reading.spec


def reading_of(path: Path) -> Reading:
    """The file, read; InvalidFile with every problem."""
    try:
        return load_reading(path.read_bytes())
    except InvalidSpec as refusal:
        raise InvalidFile(path, refusal) from None
    except OSError as error:
        raise UsageProblem(f"cannot read {path}: {error.strerror}") from None


def spec_path(given: Path | None, option: Path | None) -> Path:
    """The deployment.yml (or .yaml) meant by an argument or by --file: a folder stands for the one in it, nothing for
    the one here."""
    if given and option:
        raise UsageProblem(f"name the file once: {given}, or --file {option}")
    path = given or option or Path()
    if not path.is_dir():
        return path
    return next((path / name for name in _FILE_NAMES if (path / name).exists()), path / _FILE_NAMES[0])


def seconds(text: str) -> float | None:
    """A duration such as 90, 90s or 10m in seconds; None for an empty text."""
    if not text:
        return None
    try:
        value: timedelta = TypeAdapter(Duration).validate_python(float(text) if text.isdigit() else text)
    except ValidationError:
        raise UsageProblem(f"'{text}' is no duration; expected such as 90s, 10m or 2h, at most 168h") from None
    return value.total_seconds()
