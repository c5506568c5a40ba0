"""Sends the contents that the server lacks, each in pieces, and goes on where a broken transfer ended."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import grpc

from longshore.calls import Deadline, Pauses, unary
from longshore.errors import Reason
from longshore.failures import LongshoreError, from_rpc
from longshore.sources import Source
from longshore.v1 import build_pb2

PIECE = 256 * 1024
STAT_BATCH = 1000


@dataclass(frozen=True)
class UploadProgress:
    """How much of all that the server lacks has been sent, and which file is being sent."""

    sent_bytes: int
    total_bytes: int
    path: str


# Called from a thread of the transfer; must return quickly.
OnProgress = Callable[[UploadProgress], None]


class Uploader:
    """Sends files. `stat` and `write` are the calls StatUploads and WriteUpload."""

    def __init__(self, stat: object, write: object, timeout: float, patience: float) -> None:
        self._stat, self._write = stat, write
        self._timeout, self._patience = timeout, patience
        self._sent = self._total = 0

    def run(self, sources: Sequence[Source], on_progress: OnProgress | None = None) -> None:
        """Afterwards the server holds every content, or LongshoreError is raised."""
        by_digest = {source.entry.digest: source for source in sources}
        states = self._states(list(by_digest))
        missing = [state for state in states if not state.complete]
        self._sent = 0
        self._total = sum(by_digest[state.digest].entry.size_bytes - state.held_bytes for state in missing)
        for state in missing:
            self._send(by_digest[state.digest], state, on_progress or (lambda _: None))

    def _states(self, digests: Sequence[str]) -> list[build_pb2.UploadState]:
        states: list[build_pb2.UploadState] = []
        for start in range(0, len(digests), STAT_BATCH):
            request = build_pb2.StatUploadsRequest(digests=digests[start : start + STAT_BATCH])
            answer = unary(
                self._stat, request, build_pb2.StatUploadsResponse, timeout=self._timeout, patience=self._patience
            )
            states.extend(answer.uploads)
        return states

    def _send(self, source: Source, state: build_pb2.UploadState, on_progress: OnProgress) -> None:
        until, pauses = Deadline.after(self._patience), Pauses()
        while not state.complete:
            pieces = _Pieces(source, state.held_bytes, lambda size: self._progress(source, size, on_progress))
            try:
                cast(Callable[..., object], self._write)(iter(pieces))
                return
            except grpc.RpcError as error:
                failure = pieces.failure or _explained(from_rpc(error), source)
            again = failure.unreachable or failure.reason == Reason.UPLOAD_OFFSET
            held = state.held_bytes
            if not again or until.passed():
                raise failure
            pauses.sleep(until)
            (state,) = self._states([source.entry.digest])
            if state.held_bytes > held:
                until = Deadline.after(self._patience)

    def _progress(self, source: Source, size: int, on_progress: OnProgress) -> None:
        self._sent = min(self._sent + size, self._total)
        on_progress(UploadProgress(self._sent, self._total, source.entry.path))


class _Pieces:
    """The pieces of one file from an offset on. `failure` is set where the file could not be read."""

    def __init__(self, source: Source, offset: int, on_piece: Callable[[int], None]) -> None:
        self._source, self._offset, self._on_piece = source, offset, on_piece
        self.failure: LongshoreError | None = None

    def __iter__(self) -> Iterator[build_pb2.WriteUploadRequest]:
        entry = self._source.entry
        try:
            with self._source.location.open("rb") as file:
                file.seek(self._offset)
                offset = self._offset
                head = build_pb2.WriteUploadRequest(
                    digest=entry.digest, size_bytes=entry.size_bytes, offset=offset, data=file.read(PIECE)
                )
                yield head
                offset += len(head.data)
                self._on_piece(len(head.data))
                while data := file.read(PIECE):
                    yield build_pb2.WriteUploadRequest(offset=offset, data=data)
                    offset += len(data)
                    self._on_piece(len(data))
        except OSError as error:
            self.failure = LongshoreError("FILES_UNUSABLE", f"cannot read {entry.path}: {error.strerror}")
            raise


def _explained(failure: LongshoreError, source: Source) -> LongshoreError:
    if failure.reason == Reason.UPLOAD_CORRUPT:
        message = f"{source.entry.path} changed while it was sent; try again once nothing writes to it"
        return LongshoreError(failure.reason, message, failure.problems, failure.code)
    return failure
