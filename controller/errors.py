"""Domain errors: what went wrong, without knowing of gRPC. `controller.rpc.errors` alone maps them to status codes."""

from dataclasses import dataclass

from longshore.errors import Reason


class DomainError(Exception):
    """The base of all errors that a caller is told about. `metadata` travels in ErrorInfo."""

    def __init__(self, reason: Reason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


class NotFound(DomainError):
    pass


class InvalidRequest(DomainError):
    """A field of the request is not allowed; `field` is its path."""

    def __init__(self, field: str, message: str, reason: Reason = Reason.INVALID_REQUEST) -> None:
        super().__init__(reason, f"{field}: {message}")
        self.field = field
        self.description = message


class FailedPrecondition(DomainError):
    pass


class AlreadyExists(DomainError):
    pass


class OutOfRange(DomainError):
    pass


class DataLoss(DomainError):
    pass


class ResourceExhausted(DomainError):
    pass


class Unavailable(DomainError):
    """Worth another try later."""


class NotStored(Unavailable):
    """The database takes nothing now; nothing of what the call was to change has changed. `disk_full`: for all that is
    known, since there is no room."""

    def __init__(self, message: str, *, disk_full: bool = False) -> None:
        super().__init__(Reason.NOT_STORED, message)
        self.disk_full = disk_full


class Unauthenticated(DomainError):
    pass


class PermissionDenied(DomainError):
    pass


class OperatorError(Exception):
    """An installation cannot do what its operator asked for; the text says why, and ends up on the terminal."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a `deployment.yml`; line and column from 1, 0 where it has no place."""

    path: str
    line: int
    column: int
    message: str


class InvalidSpec(DomainError):
    """A `deployment.yml` cannot be accepted; `problems` in the order of the file, never empty."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(Reason.INVALID_SPEC, f"deployment.yml line {first.line}: {first.path}: {first.message}{more}")
        self.problems = problems
