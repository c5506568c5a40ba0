"""What a person sees while a build runs: a line for each target on a terminal, plain lines elsewhere. On stderr."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.cli import build_words, output, words
from controller.cli.progress import log_line
from longshore.uploads import UploadProgress
from longshore.v1 import build_pb2

# A redraw leaves its trace only where nothing is drawn over it, so four times a second are enough.
_REDRAWS = 4


class BuildProgress(Protocol):
    """Where a build tells what goes on. May be called from several threads."""

    # Whether `log` is of any use.
    wants_log: bool

    def upload(self, progress: UploadProgress) -> None: ...

    def log(self, answer: build_pb2.ReadBuildLogResponse) -> None: ...

    def build(self, build: build_pb2.Build) -> None: ...


@contextmanager
def build_progress(*, show_log: bool) -> Iterator[BuildProgress]:
    """A live view where stderr is a terminal, else lines. `show_log`: every line of the log is wanted."""
    if sys.stderr.isatty() and not show_log:
        with LiveBuild() as live:
            yield live
    else:
        yield PlainBuild(show_log)


class PlainBuild:
    """Prints a line for each change of state, and the log where it is wanted."""

    def __init__(self, wants_log: bool) -> None:
        self.wants_log = wants_log
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()

    def upload(self, progress: UploadProgress) -> None:
        if progress.sent_bytes == progress.total_bytes:
            self._say("", f"uploaded {words.size(progress.total_bytes)}")

    def log(self, answer: build_pb2.ReadBuildLogResponse) -> None:
        output.note(log_line(answer))

    def build(self, build: build_pb2.Build) -> None:
        for target in build.targets:
            name, why = build_words.target_name(target), words.said(target.reason, target.message)
            line = f"{name}: {words.build_state(target.state)}{f' - {why}' if why else ''}"
            place = f" (number {target.queue_position})" if target.queue_position else ""
            self._say(name, line, place)

    def _say(self, whom: str, line: str, place: str = "") -> None:
        """Each line once; a place in the queue alone, which changes often, makes no new one."""
        with self._lock:
            if self._said.get(whom) != line:
                self._said[whom] = line
                output.note(line + place)


class LiveBuild:
    """Redraws one small picture: the upload, then each target with state, time and last line."""

    wants_log = True

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._upload: UploadProgress | None = None
        self._build: build_pb2.Build | None = None
        self._live = Live(
            get_renderable=self._picture, console=output.console(sys.stderr), refresh_per_second=_REDRAWS,
            transient=True,
        )  # fmt: skip

    def __enter__(self) -> "LiveBuild":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def upload(self, progress: UploadProgress) -> None:
        self._upload = progress

    def log(self, answer: build_pb2.ReadBuildLogResponse) -> None:
        self._last[answer.target] = answer.line.text

    def build(self, build: build_pb2.Build) -> None:
        self._build = build

    def _picture(self) -> RenderableType:
        return picture(self._build, self._upload, dict(self._last), datetime.now(UTC))


def picture(
    build: build_pb2.Build | None, upload: UploadProgress | None, last: Mapping[str, str], now: datetime
) -> RenderableType:
    """What the live view shows at one moment; `last` has the last line of each target's log."""
    if build is None:
        if upload is None or upload.sent_bytes >= upload.total_bytes:
            return Text()
        return Text(f"uploading {upload.path}: {words.size(upload.sent_bytes)} of {words.size(upload.total_bytes)}")
    lines = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in range(3):
        lines.add_column(no_wrap=True)
    lines.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for target in build.targets:
        name = build_words.target_name(target)
        said = words.said(target.reason, target.message) or last.get(name, "")
        state = output.styled(build_words.target_state(target))
        lines.add_row(Text(name), state, Text(build_words.took(target, now)), Text(said, style="dim"))
    return Group(Text(f"build {build.id} of {build.name}"), lines)
