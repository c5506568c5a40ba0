"""What went wrong with a call, as one typed error with everything that the server said."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.message import DecodeError, Message

from longshore.v1 import build_pb2, details_pb2

_DETAILS = "grpc-status-details-bin"
# By the name under which it travels.
_KINDS: dict[str, type[Message]] = {
    "google.rpc.ErrorInfo": details_pb2.ErrorInfo,
    "google.rpc.BadRequest": details_pb2.BadRequest,
    "longshore.v1.SpecProblems": build_pb2.SpecProblems,
}
_SIGN_IN = frozenset(("UNAUTHENTICATED", "PERMISSION_DENIED"))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a request or a file; line and column from 1, 0 where there is no such place."""

    path: str
    line: int
    column: int
    message: str


class LongshoreError(Exception):
    """A call failed. Programs match on `reason`, people read `message`.

    `reason` is one of `longshore.errors.Reason`, or the name of the gRPC status where the server gave none.
    `problems` is not empty where a `deployment.yml` or a field of the request is at fault.
    """

    def __init__(
        self, reason: str, message: str, problems: tuple[Problem, ...] = (), code: str = "", **metadata: str
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.problems = problems
        # Name of the gRPC status; empty where no call was made.
        self.code = code
        self.metadata = metadata

    @property
    def unreachable(self) -> bool:
        """The controller did not answer; the same call may succeed later."""
        return self.code == "UNAVAILABLE" and self.reason == "UNAVAILABLE"

    @property
    def unauthorized(self) -> bool:
        return self.code in _SIGN_IN

    @property
    def invalid(self) -> bool:
        """The request itself is at fault; the same call fails again."""
        return self.code == "INVALID_ARGUMENT" or bool(self.problems)


class WaitTimeout(LongshoreError):
    """What was waited for has not come true in time; it may yet."""

    def __init__(self, message: str) -> None:
        super().__init__("WAIT_TIMEOUT", message)


class Failed(LongshoreError):
    """A build or deployment ended in failure. `lines` are the last lines of its output."""

    def __init__(self, reason: str, message: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(reason, message)
        self.lines = lines


def from_rpc(error: grpc.RpcError) -> LongshoreError:
    """The failure of a call with the details that travelled in it."""
    code, text = error.code().name, error.details() or error.code().name
    reason, metadata = code, dict[str, str]()
    problems: tuple[Problem, ...] = ()
    fields: tuple[Problem, ...] = ()
    for detail in _details(error):
        if isinstance(detail, details_pb2.ErrorInfo):
            reason, metadata = detail.reason, dict(detail.metadata)
        elif isinstance(detail, build_pb2.SpecProblems):
            problems = tuple(Problem(p.path, p.line, p.column, p.message) for p in detail.problems)
        elif isinstance(detail, details_pb2.BadRequest):
            fields = tuple(Problem(v.field, 0, 0, v.description) for v in detail.field_violations)
    failure = LongshoreError(reason, text, problems or fields, code)
    failure.metadata.update(metadata)
    return failure


def _details(error: grpc.RpcError) -> list[object]:
    """The messages in the status; what is broken or unknown is left out."""
    found: list[object] = []
    metadata = cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ())
    for key, value in metadata:
        if key == _DETAILS and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                found += _unpacked(value)
    return found


def _unpacked(status: bytes) -> list[object]:
    found: list[object] = []
    for packed in details_pb2.ErrorStatus.FromString(status).details:
        if kind := _KINDS.get(packed.TypeName()):
            found.append(kind.FromString(packed.value))
    return found
