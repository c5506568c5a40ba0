"""`longshore deployments`, `instances`, `stop` and `delete`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from controller.cli import output, session, words
from controller.cli.listing import Listing, of_instances, show
from controller.cli.output import Format
from controller.cli.progress import progress
from controller.cli.session import Session
from longshore import outcome
from longshore.client import Answer
from longshore.v1 import deployment_pb2


def deployments(
    name: Annotated[str, typer.Argument(help="Show this one in full.", show_default=False)] = "",
    everything: session.AllProjects = False,
    include_deleted: Annotated[bool, typer.Option("--include-deleted", help="Show deleted ones too.")] = False,
    watch: session.Watching = False,
    interval: session.Interval = 2.0,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List the deployments of a project, or show one.

    Examples:

      longshore deployments

      longshore deployments digits -o yaml

      longshore deployments --all-projects -o json

      longshore deployments --watch
    """
    with session.session(context, user, project) as here:
        if name:
            _show(here.client.find_deployment(here.project, name), form)
            return
        owner = None if everything else here.project

        def look() -> Listing:
            entries = list(here.client.list_deployments(owner, include_deleted=include_deleted))
            sheet = words.deployments(entries, datetime.now(UTC), owner=everything, wide=form is Format.WIDE)
            # Names of deleted ones, and of other projects', may be the same.
            return Listing(entries, [entry.name for entry in entries], sheet, [entry.id for entry in entries])

        show(look, form, watch=watch, interval=interval)


def instances(
    name: Annotated[str, typer.Argument(help="Only those of this deployment.", show_default=False)] = "",
    device: Annotated[str, typer.Option(help="Only those on this device.", show_default=False)] = "",
    watch: session.Watching = False,
    interval: session.Interval = 2.0,
    everything: session.AllProjects = False,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """List what runs where, with state and address.

    Examples:

      longshore instances

      longshore instances digits -o json

      longshore instances --device edge-7 --watch
    """
    with session.session(context, user, project) as here:
        deployment_id = here.client.find_deployment(here.project, name).deployment.id if name else ""
        owner = None if everything else here.project

        def look() -> Listing:
            entries = list(here.client.list_instances(owner, deployment_id=deployment_id, device_id=device))
            sheet = words.instances(entries, datetime.now(UTC), wide=form is Format.WIDE)
            return of_instances(entries, sheet)

        show(look, form, watch=watch, interval=interval)


def stop(
    name: session.DeploymentName,
    no_wait: session.NoWait = False,
    timeout: session.Timeout = "",
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Stop a deployment; `longshore deploy` starts it again.

    Waits until no device runs it any more.

    Examples:

      longshore stop digits

      longshore stop digits --no-wait
    """
    limit = session.seconds(timeout)
    with session.session(context, user, project) as here:
        deployment_id = here.client.find_deployment(here.project, name).deployment.id
        now = here.client.stop(deployment_id)
        if not no_wait:
            now = _await(here, deployment_id, outcome.stopped, limit)
    _tell(now, f"{name} {'stops' if no_wait else 'is stopped'}", form)


def delete(
    name: session.DeploymentName,
    no_wait: session.NoWait = False,
    timeout: session.Timeout = "",
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Delete a deployment: devices stop and remove it.

    Waits until it is gone from every device; its history stays readable.

    Examples:

      longshore delete digits
    """
    limit = session.seconds(timeout)
    with session.session(context, user, project) as here:
        deployment_id = here.client.find_deployment(here.project, name).deployment.id
        now = here.client.delete(deployment_id)
        if not no_wait:
            now = _await(here, deployment_id, outcome.deleted, limit)
    _tell(now, f"{name} {'is being deleted' if no_wait else 'is deleted'}", form)


def _await(here: Session, deployment_id: str, judge: outcome.Judge, limit: float | None) -> deployment_pb2.Deployment:
    with progress(show_log=False) as view:
        return here.client.wait_until(deployment_id, judge, timeout=limit, on_answer=view.answer).deployment


def _tell(deployment: deployment_pb2.Deployment, sentence: str, form: Format) -> None:
    if form.for_people:
        print(sentence)
    else:
        output.write_one(deployment, deployment.name, form)


def _show(answer: Answer, form: Format) -> None:
    """One deployment in full."""
    deployment = answer.deployment
    if not form.for_people:
        output.write_one(deployment if form is Format.NAME else answer, deployment.name, form)
        return
    now = datetime.now(UTC)
    output.draw(words.deployments([deployment], now))
    print(f"\nid {deployment.id}, build {deployment.build_id or '-'}, updated {words.clock(deployment.updated)}\n")
    output.draw(words.instances(answer.instances, now))
    for instance in answer.instances:
        if instance.status.last_lines:
            print(f"\nlast lines on {instance.device_name}:")
            print("\n".join(f"  | {line}" for line in instance.status.last_lines))
