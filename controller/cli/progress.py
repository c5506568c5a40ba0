"""What a person sees while something is long: a live view on a terminal, plain lines elsewhere. All on stderr."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from controller.cli import output, words
from longshore.client import Answer
from longshore.uploads import UploadProgress
from longshore.v1 import build_pb2

LOG_LINES = 6


class Progress(Protocol):
    """Where long commands tell what goes on. May be called from several threads."""

    def upload(self, progress: UploadProgress) -> None: ...

    def log(self, answer: build_pb2.ReadBuildLogResponse) -> None: ...

    def answer(self, answer: Answer) -> None: ...


@contextmanager
def progress(*, show_log: bool) -> Iterator[Progress]:
    """A live view where stderr is a terminal, else lines. `show_log`: every line of a build's log is wanted."""
    if sys.stderr.isatty() and not show_log:
        with LiveProgress() as live:
            yield live
    else:
        yield PlainProgress()


class PlainProgress:
    """Prints a line for each change."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._uploaded = False
        self._lock = threading.Lock()

    def upload(self, progress: UploadProgress) -> None:
        if progress.sent_bytes == progress.total_bytes and not self._uploaded:
            self._uploaded = True
            output.note(f"uploaded {words.size(progress.total_bytes)}")

    def log(self, answer: build_pb2.ReadBuildLogResponse) -> None:
        output.note(log_line(answer))

    def answer(self, answer: Answer) -> None:
        for key, line in state_lines(answer):
            with self._lock:
                if self._said.get(key) == line:
                    continue
                self._said[key] = line
                output.note(line)


class LiveProgress:
    """Redraws one small picture: upload, state, instances, the last lines of the build's log."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._upload: UploadProgress | None = None
        self._answer: Answer | None = None
        self._began = time.monotonic()
        self._live = Live(
            get_renderable=self._picture, console=output.console(sys.stderr), refresh_per_second=8, transient=True
        )

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def upload(self, progress: UploadProgress) -> None:
        self._upload = progress

    def log(self, answer: build_pb2.ReadBuildLogResponse) -> None:
        self._lines.append(log_line(answer))

    def answer(self, answer: Answer) -> None:
        self._answer = answer

    def _picture(self) -> RenderableType:
        return picture(self._answer, self._upload, list(self._lines), time.monotonic() - self._began)


def picture(answer: Answer | None, upload: UploadProgress | None, lines: list[str], seconds: float) -> Group:
    """What the live view shows at one moment."""
    parts: list[RenderableType] = []
    if upload and upload.sent_bytes < upload.total_bytes:
        sent, total = words.size(upload.sent_bytes), words.size(upload.total_bytes)
        parts.append(Text(f"uploading {upload.path}: {sent} of {total}"))
    if answer:
        deployment = answer.deployment
        head = words.deployment_state(deployment.state)
        why = words.said(deployment.reason, deployment.message)
        title = f" {deployment.name} r{deployment.revision}  {seconds:.0f} s  {why}"
        parts.append(Text.assemble(output.styled(head), title))
        if answer.instances:
            parts.append(output.table(words.instances(answer.instances, datetime.now(UTC))))
    building = not answer or words.deployment_state(answer.deployment.state) == "BUILDING"
    parts += [Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in lines if building]
    return Group(*parts)


def log_line(answer: build_pb2.ReadBuildLogResponse) -> str:
    """A line of a build's log, with its target where there is one."""
    return f"{answer.target}: {answer.line.text}" if answer.target else answer.line.text


def state_lines(answer: Answer) -> Iterator[tuple[str, str]]:
    """What plain progress says of a deployment: (whom it is about, line)."""
    deployment = answer.deployment
    why = words.said(deployment.reason, deployment.message)
    head = f"{deployment.name} r{deployment.revision}: {words.deployment_state(deployment.state)}"
    yield "", " - ".join(part for part in (head, why) if part)
    for instance in answer.instances:
        status = instance.status
        ready = " ready" if status.ready else ""
        why = words.said(status.reason, status.message)
        # Percentages would be a line each.
        state = words.instance_state(status).split(" ")[0]
        line = f"  {instance.device_name}: {state}{ready}"
        yield instance.device_id, " - ".join(part for part in (line, why) if part)
