"""Whole documents that come in pieces: in a file when all of it is there, or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from longshore.calls import NEVER, Deadline, Opener, Pauses, pieces
from longshore.failures import LongshoreError


def download(open_stream: Opener, target: Path, patience: float) -> int:
    """Afterwards `target` holds the whole document, in place of what it held before; returns its bytes.

    A transfer that breaks begins again, for `patience` seconds. Raises LongshoreError; `target` is then as it was.
    """
    until, pauses = Deadline.after(patience), Pauses()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        while True:
            try:
                with draft.open("wb") as file:
                    size = _write(open_stream, file)
                draft.replace(target)
                return size
            except LongshoreError as failure:
                if not failure.unreachable or until.passed():
                    raise
            except OSError as error:
                raise LongshoreError("FILES_UNUSABLE", f"cannot write {target}: {error.strerror}") from error
            pauses.sleep(until)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def stream(open_stream: Opener) -> Iterator[bytes]:
    """The pieces as they come, for a reader who can begin only once: a stream that breaks raises LongshoreError."""
    for piece in pieces(open_stream, NEVER, None):
        yield piece.data


def _write(open_stream: Opener, file: BinaryIO) -> int:
    return sum(file.write(data) for data in stream(open_stream))
