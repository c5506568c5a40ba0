"""`longshore events` and `longshore logs`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from controller.cli import build_records, output, progress, session, words
from controller.cli.errors import UsageProblem
from controller.cli.many_logs import Reader, Said, Unread, as_they_come, in_order
from controller.cli.output import Format
from controller.cli.session import Session
from controller.events.model import EventKind
from longshore.failures import LongshoreError
from longshore.v1 import event_pb2, types_pb2

Follow = Annotated[bool, typer.Option("--follow", "-F", help="Go on with what comes.")]


@dataclass(frozen=True)
class Wanted:
    """Which lines of an instance's log; `age` in seconds."""

    device: str
    tail: int
    age: float | None
    follow: bool
    previous: bool


def events(
    follow: Follow = False,
    after: Annotated[int, typer.Option(help="Only events with a greater number.")] = 0,
    deployment: Annotated[str, typer.Option(help="Only those of this deployment.", show_default=False)] = "",
    build: Annotated[str, typer.Option(help="Only those of this build.", show_default=False)] = "",
    kinds: Annotated[
        list[EventKind] | None, typer.Option("--kind", help="Only of this kind; may be repeated.", show_default=False)
    ] = None,
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Only to this state; may be repeated.", show_default=False)
    ] = None,
    of_devices: Annotated[bool, typer.Option("--devices", help="Those of devices: enrolled, online, offline.")] = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Show the numbered events of a project: nothing missing, nothing twice.

    With --follow, JSON comes as one event a line.

    Examples:

      longshore events --follow

      longshore events --deployment digits --after 120 -o json

      longshore events --kind INSTANCE --state FAILED --state BACKOFF
    """
    with session.session(context, user, project) as here:
        deployment_id = _deployment_id(here, deployment) if deployment else ""
        found = here.client.watch_events(
            None if of_devices else here.project,
            after=after,
            follow=follow,
            deployment_id=deployment_id,
            build_id=build,
            kinds=[event_pb2.EventKind.Value(f"EVENT_KIND_{kind}") for kind in kinds or ()],
            states=states or (),
        )
        if not follow and form in (Format.JSON, Format.YAML):
            print(output.encode([output.as_dict(event) for event in found], form), end="")
            return
        for event in found:
            if form.for_people:
                print(words.event_line(event), flush=True)
            else:
                output.write_item(event, str(event.number), form)


def logs(
    name: Annotated[str, typer.Argument(help="Name of the deployment.", show_default=False)] = "",
    build: Annotated[str, typer.Option(help="The log of this build instead.", show_default=False)] = "",
    follow: Follow = False,
    tail: Annotated[int, typer.Option(min=0, help="Only the last so many lines; 0 means all.")] = 0,
    since: Annotated[str, typer.Option(help="Only lines younger than this: 10m.", show_default=False)] = "",
    device: session.DeviceName = "",
    everywhere: Annotated[
        bool, typer.Option("--all", help="Of all devices that run it, or of everything in the project.")
    ] = False,
    previous: Annotated[bool, typer.Option("--previous", help="Of the instance before the one that runs.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="With the time of each line.")] = False,
    user: session.User = "",
    project: session.ProjectName = "",
    context: session.ContextFile = None,
) -> None:
    """Show the output of a deployment's instance, or the log of a build.

    Examples:

      longshore logs digits --tail 50 --follow

      longshore logs digits --device edge-7 --since 10m

      longshore logs digits --previous

      longshore logs digits --all --since 1h

      longshore logs --all --follow

      longshore logs --build ID --follow
    """
    if everywhere and (build or device):
        raise UsageProblem("--all is of all devices: it goes with neither --build nor --device")
    if bool(name) == bool(build) and not everywhere:
        raise UsageProblem("name a deployment, or a build by --build; see `longshore logs --help`")
    if previous and (build or follow):
        raise UsageProblem("--previous is of an instance that has ended: it goes with neither --follow nor --build")
    age = session.seconds(since)
    with session.session(context, user, project) as here:
        wanted = Wanted(device, tail, age, follow, previous)
        if everywhere:
            lines = _all_lines(here, name, wanted)
        else:
            lines = _build_lines(here, build, follow, tail) if build else _lines(here, name, wanted)
        for time, text in lines:
            print(f"{words.clock(time)} {text}" if timestamps else text, flush=follow)


def _build_lines(here: Session, build_id: str, follow: bool, tail: int) -> Iterator[tuple[Timestamp, str]]:
    for answer in build_records.lines(here, build_id, "", follow, 0, tail):
        yield answer.line.time, progress.log_line(answer)


def _lines(here: Session, name: str, wanted: Wanted) -> Iterator[tuple[Timestamp, str]]:
    answer = here.client.find_deployment(here.project, name)
    for line in _read(here, answer.deployment.id, session.device_id(answer, wanted.device), wanted):
        yield line.time, line.text


def _read(here: Session, deployment_id: str, device_id: str, wanted: Wanted) -> Iterator[types_pb2.LogLine]:
    since: Timestamp | None = None
    if wanted.age is not None:
        since = Timestamp()
        since.FromDatetime(datetime.now(UTC) - timedelta(seconds=wanted.age))
    return here.client.read_instance_log(
        deployment_id, device_id=device_id, tail=wanted.tail, since=since, follow=wanted.follow,
        previous=wanted.previous,
    )  # fmt: skip


def _all_lines(here: Session, name: str, wanted: Wanted) -> Iterator[tuple[Timestamp, str]]:
    """Of each instance, with whose line it is before it. What could not be read is told when all others are."""
    deployment_id = here.client.find_deployment(here.project, name).deployment.id if name else ""
    readers: dict[str, Reader] = {}
    for one in here.client.list_instances(here.project, deployment_id=deployment_id):
        source = one.device_name if name else f"{one.deployment_name}/{one.device_name}"
        readers[source] = partial(_read, here, one.deployment_id, one.device_id, wanted)
    unread: list[Unread] = []
    for item in as_they_come(readers) if wanted.follow else in_order(readers):
        if isinstance(item, Said):
            yield item.line.time, f"{item.source}: {item.line.text}"
        else:
            unread.append(item)
            output.note(f"{item.source}: {item.failure.message}")
    if unread:
        first = unread[0].failure
        message = f"{len(unread)} of {len(readers)} logs could not be read to their end"
        raise LongshoreError(first.reason, message, code=first.code)


def _deployment_id(here: Session, name: str) -> str:
    """The deployment with this name; the one deleted last where there is none any more."""
    for include_deleted in (False, True):
        for entry in here.client.list_deployments(here.project, include_deleted=include_deleted):
            if entry.name == name:
                return entry.id
    raise LongshoreError("NO_SUCH_DEPLOYMENT", f"no deployment {name} in this project", code="NOT_FOUND")
