"""Domain errors to gRPC status codes with google.rpc details. The only module that knows both."""

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
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
}


def status_code(error: errors.DomainError) -> grpc.StatusCode:
    return CODES[type(error)]


def trailing_metadata(error: errors.DomainError) -> tuple[tuple[str, bytes], ...]:
    """The details of an error as gRPC's trailing metadata carries them."""
    code = code_pb2.Code.Value(status_code(error).name)
    status = status_pb2.Status(code=code, message=error.message)
    for detail in _details(error):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return ((DETAILS_KEY, status.SerializeToString()),)


def _details(error: errors.DomainError) -> list[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidSpec):
        details += [_bad_request(error.problems), _spec_problems(error.problems)]
    elif isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.description)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    elif isinstance(error, errors.Unavailable):
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2)))
    return details


def _bad_request(problems: list[errors.Problem]) -> error_details_pb2.BadRequest:
    described: list[tuple[str, str]] = [(p.path, f"line {p.line}, column {p.column}: {p.message}") for p in problems]
    violations = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in described]
    return error_details_pb2.BadRequest(field_violations=violations)


def _spec_problems(problems: list[errors.Problem]) -> build_pb2.SpecProblems:
    return build_pb2.SpecProblems(problems=[build_pb2.SpecProblem(**vars(problem)) for problem in problems])
