"""Domain errors to gRPC status codes with google.rpc details. The only module that knows both."""

from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from controller import errors
from longshore.errors import DOMAIN
from longshore.v1 import build_pb2

# Key of the trailing metadata that carries a google.rpc.Status.
DETAILS_KEY = "grpc-status-details-bin"
# Metadata of a call in which the caller says how many bytes of details it takes.
LIMIT_KEY = "longshore-details-limit"
# gRPC's clients take 8 KiB of metadata in all, unless they are told to take more.
USUAL_LIMIT = 6 * 1024
LARGEST_LIMIT = 1_000_000
LONGEST_TEXT = 500
# Type names and lengths around details.
OVERHEAD = 300
INTERNAL_TEXT = "the controller failed; its log has the details"

CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.NotStored: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}


def status_code(error: errors.DomainError) -> grpc.StatusCode:
    return CODES[type(error)]


def status_text(error: errors.DomainError) -> str:
    """The message as it travels: it may quote what the caller sent, which may be long."""
    return error.message if len(error.message) <= LONGEST_TEXT else f"{error.message[: LONGEST_TEXT - 3]}..."


def details_limit(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """How many bytes of details the caller takes, as it says itself in its metadata, else as is usual."""
    said = dict(metadata).get(LIMIT_KEY, "")
    return min(int(said), LARGEST_LIMIT) if isinstance(said, str) and said.isdecimal() else USUAL_LIMIT


def trailing_metadata(error: errors.DomainError, limit: int = USUAL_LIMIT) -> tuple[tuple[str, bytes], ...]:
    """The details of an error as gRPC's trailing metadata carries them, in at most `limit` bytes: what is more would
    make the caller see another error in its place. Of many problems the first are told."""
    code = code_pb2.Code.Value(status_code(error).name)
    status = status_pb2.Status(code=code, message=status_text(error))
    for detail in _details(error, limit - status.ByteSize()):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return ((DETAILS_KEY, status.SerializeToString()),)


def _details(error: errors.DomainError, room: int) -> list[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidSpec):
        told = _that_fit(error.problems, room - info.ByteSize() - OVERHEAD)
        details += [_bad_request(told), _spec_problems(told)]
    elif isinstance(error, errors.InvalidRequest):
        said = error.description[:LONGEST_TEXT]
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field[:LONGEST_TEXT], description=said)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    elif isinstance(error, errors.Unavailable):
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2)))
    return details


def _that_fit(problems: list[errors.Problem], room: int) -> list[errors.Problem]:
    told: list[errors.Problem] = []
    for problem in problems:
        # Each with its tag and length.
        room -= _bad_request([problem]).ByteSize() + _spec_problems([problem]).ByteSize() + 4
        if room < 0:
            break
        told.append(problem)
    return told


def _bad_request(problems: list[errors.Problem]) -> error_details_pb2.BadRequest:
    described: list[tuple[str, str]] = [(p.path, f"line {p.line}, column {p.column}: {p.message}") for p in problems]
    violations = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in described]
    return error_details_pb2.BadRequest(field_violations=violations)


def _spec_problems(problems: list[errors.Problem]) -> build_pb2.SpecProblems:
    return build_pb2.SpecProblems(problems=[build_pb2.SpecProblem(**vars(problem)) for problem in problems])
