"""Where a reader of an instance's log stands: such lines have times, but no numbers."""

from longshore.calls import Opener, Stream
from longshore.v1 import deployment_pb2, types_pb2


class LogCursor:
    """Moves a request on behind the lines that were seen, and drops those that come again.

    A stream that is opened again begins with the lines of the last time seen; as many of them as were seen are old.
    """

    def __init__(self, request: deployment_pb2.ReadInstanceLogRequest) -> None:
        self._request = request
        self._at_last = 0
        self._old = 0

    def opening(self, open_stream: Opener) -> Opener:
        """`open_stream`, with the lines that come again counted at each opening."""

        def opened(timeout: float | None) -> Stream:
            self._old = self._at_last
            return open_stream(timeout)

        return opened

    def is_new(self, line: types_pb2.LogLine) -> bool:
        """Whether the line was not seen yet; takes note of it."""
        same_time = self._at_last > 0 and line.time == self._request.since
        if self._old and same_time:
            self._old -= 1
            return False
        self._old = 0
        self._at_last = self._at_last + 1 if same_time else 1
        self._request.tail = 0
        self._request.since.CopyFrom(line.time)
        return True
