"""Where log lines go: nobody who logs has to think of a disk that is full."""

import contextlib
from typing import TextIO


class Output:
    """As much of a stream as a logger needs. A line that cannot be written is lost, or comes late."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()
