"""`longshore events` and `longshore logs`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from controller.cli import build_records, output, progress, session, words
from controller.cli.errors import UsageProblem
from controller.cli.output import Format
from controller.cli.session import Session
from longshore.failures import LongshoreError

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
    """
    with session.session(context, user, project) as here:
        deployment_id = _deployment_id(here, deployment) if deployment else ""
        found = here.client.watch_events(
            None if of_devices else here.project,
            after=after,
            follow=follow,
            deployment_id=deployment_id,
            build_id=build,
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

      longshore logs --build ID --follow
    """
    if bool(name) == bool(build):
        raise UsageProblem("name a deployment, or a build by --build; see `longshore logs --help`")
    if previous and (build or follow):
        raise UsageProblem("--previous is of an instance that has ended: it goes with neither --follow nor --build")
    age = session.seconds(since)
    with session.session(context, user, project) as here:
        wanted = Wanted(device, tail, age, follow, previous)
        lines = _build_lines(here, build, follow, tail) if build else _lines(here, name, wanted)
        for time, text in lines:
            print(f"{words.clock(time)} {text}" if timestamps else text, flush=follow)


def _build_lines(here: Session, build_id: str, follow: bool, tail: int) -> Iterator[tuple[Timestamp, str]]:
    for answer in build_records.lines(here, build_id, "", follow, 0, tail):
        yield answer.line.time, progress.log_line(answer)


def _lines(here: Session, name: str, wanted: Wanted) -> Iterator[tuple[Timestamp, str]]:
    since: Timestamp | None = None
    if wanted.age is not None:
        since = Timestamp()
        since.FromDatetime(datetime.now(UTC) - timedelta(seconds=wanted.age))
    answer = here.client.find_deployment(here.project, name)
    found = here.client.read_instance_log(
        answer.deployment.id, device_id=session.device_id(answer, wanted.device), tail=wanted.tail, since=since,
        follow=wanted.follow, previous=wanted.previous,
    )  # fmt: skip
    for line in found:
        yield line.time, line.text


def _deployment_id(here: Session, name: str) -> str:
    """The deployment with this name; the one deleted last where there is none any more."""
    for include_deleted in (False, True):
        for entry in here.client.list_deployments(here.project, include_deleted=include_deleted):
            if entry.name == name:
                return entry.id
    raise LongshoreError("NO_SUCH_DEPLOYMENT", f"no deployment {name} in this project", code="NOT_FOUND")
