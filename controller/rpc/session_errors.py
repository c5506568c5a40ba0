"""What it means for a user's call that a device refuses a session."""

from controller.errors import DomainError, FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted, Unavailable
from longshore.errors import Reason
from longshore.v1 import agent_pb2


def refusal(error: agent_pb2.ChannelError) -> DomainError:
    """By the device's reason; what it knows and we do not counts as a failure of the device."""
    match error.reason:
        case "NoSuchInstance" | "NoPreviousInstance":
            return NotFound(Reason.NO_SUCH_INSTANCE, error.message)
        case "NotRunning":
            return FailedPrecondition(Reason.INSTANCE_NOT_RUNNING, error.message)
        case "NoSuchPort":
            return InvalidRequest("start.port", error.message, Reason.NO_SUCH_PORT)
        case "Unsupported":
            return FailedPrecondition(Reason.NOT_SUPPORTED, error.message)
        case "TooManySessions":
            return ResourceExhausted(Reason.TOO_MANY_SESSIONS, error.message)
        case "ConnectionFailed":
            return Unavailable(Reason.CONNECTION_FAILED, error.message)
        case reason:
            return Unavailable(Reason.DEVICE_FAILED, f"{reason}: {error.message}")
