"""`longshore build cancel`, `logs`, `render`, `context` and `materials`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from controller.cli import build_words, completion, output, session, words
from controller.cli.archives import unpack
from controller.cli.build_inputs import near
from controller.cli.build_progress import build_progress
from controller.cli.building import Targets, watch
from controller.cli.errors import UsageProblem
from controller.cli.output import Format
from controller.cli.progress import log_line
from controller.cli.session import Session
from longshore.failures import LongshoreError
from longshore.v1 import build_pb2

BuildId = Annotated[str, typer.Argument(metavar="ID", help="Id of the build.", autocompletion=completion.build_ids)]
OneTarget = Annotated[
    str,
    typer.Option(
        "--target",
        help="Key of the target, where there are several.",
        show_default=False,
        autocompletion=completion.target_keys,
    ),
]


def cancel(
    build_id: BuildId,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until nothing of it runs any more.")] = True,
    timeout: session.Timeout = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """End a build wherever it is. Targets that have succeeded stay so.

    Examples:

      longshore build cancel ID

      longshore build cancel ID --no-wait
    """
    limit = session.seconds(timeout)
    with session.session(context) as here, build_progress(show_log=False) as view:
        made = here.client.cancel_build(build_id)
        if wait:
            made = watch(here.client, made, view, limit)
    if not form.for_people:
        output.write_one(made, made.id, form)
    elif not wait:
        print(f"build {made.id} is being cancelled")
    else:
        ended = "is cancelled" if made.state == build_pb2.BUILD_STATE_CANCELLED else "had ended before"
        print(f"build {made.id} {ended}: {words.build_state(made.state)}")


def logs(
    build_id: BuildId,
    target: OneTarget = "",
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on until the build has ended.")] = False,
    start: Annotated[int, typer.Option("--from", min=1, help="Number of the first line.")] = 1,
    tail: Annotated[int, typer.Option(min=0, help="Only the last so many lines; 0 means all.")] = 0,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="With number and time of each line.")] = False,
    download: Annotated[
        Path | None, typer.Option(help="Store the whole log in this file (gzip of JSON lines).", show_default=False)
    ] = None,
    context: session.ContextFile = None,
) -> None:
    """Show the log of a build.

    Examples:

      longshore build logs ID --follow

      longshore build logs ID --target arm64-cpu --from 120 --timestamps

      longshore build logs ID --download build.log.gz
    """
    if download and (follow or tail or target or start > 1):
        raise UsageProblem("--download stores the whole log; it goes with no other choice of lines")
    with session.session(context) as here:
        if download:
            size = here.client.download_build_log(build_id, download)
            output.note(f"{words.size(size)} in {download}")
            return
        for answer in lines(here, build_id, target, follow, start, tail):
            at = f"{answer.line.number:>6} {words.clock(answer.line.time)} " if timestamps else ""
            print(at + (answer.line.text if target else log_line(answer)), flush=follow)


def lines(
    here: Session, build_id: str, target: str, follow: bool, start: int, tail: int
) -> Iterator[build_pb2.ReadBuildLogResponse]:
    """Lines of a build's log; `tail` counts from the end of what is there now."""
    if tail:
        numbers = [answer.line.number for answer in here.client.read_build_log(build_id, target=target)]
        start = max(start, numbers[-tail] if len(numbers) > tail else 0)
    yield from here.client.read_build_log(build_id, target=target, from_number=start, follow=follow)


def render(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="FILE|FOLDER", help="The deployment.yml; else the one here.", show_default=False),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The same.", show_default=False)] = None,
    target: Targets = None,
    user: session.User = "",
    project: session.ProjectName = "",
    form: session.Output = Format.TABLE,
    context: session.ContextFile = None,
) -> None:
    """Show what would be built, without building: the Containerfile of each target.

    Notes go to stderr, so that the Containerfile of one target can be stored.

    Examples:

      longshore build render examples/digits

      longshore build render examples/digits --target x86-cpu > Containerfile
    """
    where = session.spec_path(path, file)
    session.read_spec(where)
    with session.session(context, user, project) as here:
        rendered = here.client.render_build(where, here.project)
    shown = _chosen(rendered, target or [])
    if not form.for_people:
        sheet = output.Sheet((), ())
        output.write_list(shown, [entry.key for entry in shown], sheet, form)
        return
    for entry in shown:
        if len(shown) > 1:
            print(f"# {entry.key} ({build_words.kind(entry.kind)}, {entry.platform})")
        print(entry.text.rstrip("\n") + ("\n" if len(shown) > 1 else ""))
        for note in entry.notes:
            output.note(f"{entry.key}: {note}")


def _chosen(rendered: list[build_pb2.RenderedTarget], keys: list[str]) -> list[build_pb2.RenderedTarget]:
    known = [entry.key for entry in rendered]
    for key in keys:
        if key not in known:
            raise UsageProblem(f"no target {key} in this deployment.yml{near(key, known)}; it has: {', '.join(known)}")
    return [entry for entry in rendered if not keys or entry.key in keys]


def context_of(
    build_id: BuildId,
    target_output: Annotated[
        Path, typer.Option("--output", "-o", help="A new or empty folder, or FILE.tar; - for a tar on stdout.")
    ],
    target: OneTarget = "",
    context: session.ContextFile = None,
) -> None:
    """Fetch all that a target was built from, to build it by hand: Containerfile, files, and what was prepared.

    Examples:

      longshore build context ID --output digits

      longshore build context ID --target x86-cpu --output digits.tar
    """
    with session.session(context) as here:
        if str(target_output) == "-":
            _to_stdout(here, build_id, target)
        elif target_output.suffix == ".tar":
            size = here.client.download_build_context(build_id, target_output, target=target)
            output.note(f"{words.size(size)} in {target_output}")
        else:
            count = unpack(here.client, build_id, target, target_output)
            output.note(
                f"{count} files in {target_output}; to build the same image:\n{build_words.by_hand(target_output)}"
            )


def _to_stdout(here: Session, build_id: str, target: str) -> None:
    if sys.stdout.isatty():
        raise UsageProblem("a tar archive is nothing for a terminal; redirect it, or name a file or folder")
    for piece in here.client.stream_build_context(build_id, target=target):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def materials(
    build_id: BuildId,
    target: OneTarget = "",
    context: session.ContextFile = None,
) -> None:
    """Show the bill of materials of a target: CycloneDX in JSON.

    Examples:

      longshore build materials ID > materials.cdx.json

      longshore build materials ID --target arm64-cpu
    """
    with session.session(context) as here:
        document = here.client.get_build_materials(build_id, target=target)
    if not document:
        raise LongshoreError("NO_MATERIALS", f"build {build_id} has no bill of materials", code="NOT_FOUND")
    sys.stdout.write(document.decode().rstrip("\n") + "\n")
