"""`longshore build FILE`: from a deployment.yml to an artifact for each target."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import typer

from controller.cli import build_words, completion, output, session, words
from controller.cli.build_inputs import chosen_targets, secret_values
from controller.cli.build_progress import BuildProgress, build_progress
from controller.cli.errors import Interrupted
from controller.cli.output import Format
from longshore import outcome
from longshore.calls import Deadline
from longshore.client import Client
from longshore.failures import Failed, LongshoreError, WaitTimeout
from longshore.v1 import build_pb2

# Where the log ends later than the build, a person does not wait for its last lines longer than this.
_LAST_LINES = 5.0

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="Key of a target; may be given again. Else all.", autocompletion=completion.target_keys
    ),
]


def build(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="FILE|FOLDER", help="The deployment.yml; else the one here.", show_default=False),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The same.", show_default=False)] = None,
    target: Targets = None,
    secret: session.Secrets = None,
    archive: Annotated[
        Path | None, typer.Option(help="Archive that holds the files (tar, zip).", show_default=False)
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Build even what was built before, and run every step.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", " /--detach", " /-d", help="Wait until it has ended.")
    ] = True,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Show every line of the log.")] = False,
    timeout: session.Timeout = "",
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Build the image or bundle of each target of a deployment.yml, without deploying it.

    A build goes on when nobody watches it; Ctrl-C only ends the watching.

    Examples:

      longshore build

      longshore build examples/digits --target x86-cpu --follow

      longshore build deployment.yml --secret token=env:INDEX_TOKEN --no-wait -o name

      longshore build cancel ID
    """
    limit = session.seconds(timeout)
    where = session.spec_path(path, file)
    spec = session.read_spec(where)
    secrets, targets = secret_values(secret or (), spec), chosen_targets(target or (), spec)
    with session.session(context, user, project) as here, build_progress(show_log=follow) as view:
        made = here.client.build(
            where, here.project, files=[] if archive else spec.build.all_files, archive=archive, secrets=secrets,
            targets=targets, no_cache=no_cache, on_progress=view.upload,
        )  # fmt: skip
        if wait:
            made = watch(here.client, made, view, limit)
    _tell(made, form, wait)


def watch(client: Client, made: build_pb2.Build, view: BuildProgress, limit: float | None) -> build_pb2.Build:
    """The build once it has ended. Raises WaitTimeout, and Interrupted at Ctrl-C; the build goes on then."""
    hint = f"it goes on: `longshore build logs {made.id} --follow` shows it, `longshore build cancel {made.id}` ends it"
    try:
        view.build(made)
        with _log_shown(client, made.id, view):
            for seen in _drawn(client.follow_build(made.id, deadline=Deadline.after(limit))):
                view.build(made := seen)
    except WaitTimeout:
        raise WaitTimeout(f"build {made.id} has not ended in time; {hint}") from None
    except KeyboardInterrupt:
        raise Interrupted(f"build {made.id} was left; {hint}") from None
    return made


def _drawn(builds: Iterator[build_pb2.Build]) -> Iterator[build_pb2.Build]:
    """The same, drawn by a thread of its own: Ctrl-C then meets this one where it only waits, and not in the middle of
    a call, inside of which it would be lost or turn into another error."""
    found: SimpleQueue[build_pb2.Build | Exception | None] = SimpleQueue()

    def draw() -> None:
        try:
            for build in builds:
                found.put(build)
            found.put(None)
        except (LongshoreError, ValueError) as error:  # grpc raises ValueError once the channel is closed
            found.put(error)

    threading.Thread(target=draw, name="build-states", daemon=True).start()
    while (item := found.get()) is not None:
        if isinstance(item, Exception):
            raise item
        yield item


@contextmanager
def _log_shown(client: Client, build_id: str, view: BuildProgress) -> Iterator[None]:
    """The log goes to the view, from a thread of its own, all of it before the block ends well. It is only for the
    eye, so its failures are not told."""

    def read() -> None:
        try:
            for line in client.read_build_log(build_id, follow=True):
                view.log(line)
        except (LongshoreError, ValueError):  # grpc raises ValueError once the channel is closed
            return

    reader = threading.Thread(target=read, name="build-log", daemon=True)
    if view.wants_log:
        reader.start()
    yield
    if view.wants_log:
        reader.join(_LAST_LINES)


def _tell(made: build_pb2.Build, form: Format, waited: bool) -> None:
    """What was made, on stdout. Raises Failed for a build that has failed or was cancelled."""
    if not form.for_people:
        output.write_one(made, made.id, form)
    elif not waited:
        print(f"build {made.id} accepted; `longshore build logs {made.id} --follow` shows its log")
    else:
        _tell_targets(made)
    sys.stdout.flush()
    end = outcome.built(made)
    if end and not end.ok:
        raise Failed(end.reason, end.message, end.lines)


def _tell_targets(made: build_pb2.Build) -> None:
    now = datetime.now(UTC)
    for target in made.targets:
        name, state = build_words.target_name(target), words.build_state(target.state)
        if target.state == build_pb2.BUILD_STATE_SUCCEEDED:
            state = build_words.artifact(target.artifact) if target.artifact.digest else "built, not pushed"
        how = f"as build {target.cached_from}" if target.cached_from else build_words.took(target, now)
        print(f"{name}: {state}{f' ({how})' if how else ''}")
        for note in target.notes:
            print(f"  {note}")
    if made.image_index.digest:
        print(f"all: {build_words.artifact(made.image_index)}")
