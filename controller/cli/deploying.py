"""`longshore deploy`: from a deployment.yml to a ready deployment."""

import sys
import threading
import time
from typing import Annotated

import typer

from controller.cli import output, session, words
from controller.cli.build_inputs import deploy_secrets
from controller.cli.output import Format
from controller.cli.progress import Progress, progress
from controller.cli.session import Session
from longshore import outcome
from longshore.client import Answer, Client
from longshore.failures import Failed, LongshoreError, WaitTimeout
from longshore.v1 import build_pb2, deployment_pb2


def deploy(
    file: session.SpecFile = None,
    wait: session.Wait = False,
    timeout: session.Timeout = "",
    build_id: Annotated[str, typer.Option("--build", help="Deploy what this build made.", show_default=False)] = "",
    secret: session.Secrets = None,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Build a deployment.yml and run it on its devices.

    Returns once the deployment is accepted; with --wait once it answers its readiness check on every device.

    Each --secret goes to the part of the file that names it, build.secrets or deploy.secrets. Of deploy.secrets those
    that are not given keep their value.

    Exit codes: 0 it is so, 1 it failed, 2 the file or the command line is wrong, 3 --timeout passed, 4 the controller
    cannot be reached or refuses the token.

    Examples:

      longshore deploy -f deployment.yml --wait

      longshore deploy -f deployment.yml --wait --timeout 10m -o json

      longshore deploy --build b-0123456789abcdef --secret token=env:TOKEN
    """
    limit = session.seconds(timeout)
    path = session.spec_path(None, file)
    spec = session.read_spec(path)
    secrets = deploy_secrets(secret or (), spec, built=bool(build_id))
    with session.session(context, user, project) as here, progress(show_log=False) as view:
        began = time.monotonic()
        files = [] if build_id else spec.build.all_files
        applied = here.client.deploy(
            path, here.project, files=files, build_id=build_id, secrets=secrets.deploy, build_secrets=secrets.build,
            on_progress=view.upload,
        )  # fmt: skip
        answer = await_ready(here, applied, view, limit) if wait else Answer(deployment=applied.deployment)
    tell(answer, form, time.monotonic() - began if wait else None)


def await_ready(
    here: Session,
    applied: deployment_pb2.ApplyDeploymentResponse | deployment_pb2.UndoDeploymentResponse,
    view: Progress,
    limit: float | None,
) -> Answer:
    """The deployment once its new revision is ready. Raises Failed and WaitTimeout, with what it waited for."""
    deployment = applied.deployment
    if deployment.build_id:
        _watch_build(here.client, deployment.build_id, view)
    try:
        return here.client.wait_until_ready(
            deployment.id, deployment.revision, after=applied.events_from, timeout=limit, on_answer=view.answer
        )
    except WaitTimeout:
        now = here.client.get_deployment(deployment.id).deployment
        why = words.said(now.reason, now.message)
        state = words.deployment_state(now.state)
        said = f"{now.name} revision {deployment.revision} is not ready in time: {state}{f' - {why}' if why else ''}"
        raise WaitTimeout(said) from None
    except Failed as failed:
        raise _with_build(here.client, deployment, failed) from None


def _watch_build(client: Client, build_id: str, view: Progress) -> None:
    """Shows the build's log from a thread of its own; it is only for the eye, so its failures are not told."""

    def watch() -> None:
        try:
            for line in client.read_build_log(build_id, follow=True):
                view.log(line)
        except (LongshoreError, ValueError):  # grpc raises ValueError once the channel is closed
            return

    threading.Thread(target=watch, name="build-log", daemon=True).start()


def _with_build(client: Client, deployment: deployment_pb2.Deployment, failed: Failed) -> Failed:
    """A failure of the build tells step and output; any other stays as it is."""
    if deployment.build_id:
        made = client.get_build(deployment.build_id)
        if made.state == build_pb2.BUILD_STATE_FAILED and (end := outcome.built(made)):
            return Failed(end.reason, end.message, end.lines)
    return failed


def tell(answer: Answer, form: Format, took: float | None) -> None:
    """What became of it, on stdout; `took`: the seconds until it was ready, None where nobody waited."""
    deployment = answer.deployment
    if form is Format.NAME:
        output.write_one(deployment, deployment.name, form)
    elif not form.for_people:
        output.write_one(answer, deployment.name, form)
    elif took is None:
        hint = f"`longshore deployments {deployment.name}` shows how far it is"
        print(f"{deployment.name} revision {deployment.revision} accepted; {hint}")
    else:
        print(f"{deployment.name} revision {deployment.revision} is ready after {took:.1f} s")
        for instance in answer.instances:
            print(f"  {instance.device_name}: {words.endpoints(instance.status)}")
    sys.stdout.flush()
