"""What Podman's error texts mean for the agent. It has no codes for these; the texts are those of Podman 4 and 5."""

import re

from edge_agent.runtime.backend import BackendError
from edge_agent.runtime.model import Workload

NOT_FOUND_TEXTS = ("manifest unknown", "name unknown", "repository name not known", "manifest not known")
DENIED_TEXTS = ("unauthorized", "authentication required", "denied", "invalid username/password")
NO_SPACE = "no space left on device"
COMMAND_TEXTS = ("executable file not found", "executable file `", "no such file or directory")
# What is damaged in its storage is mended before the next attempt, whatever file Podman does not find there.
STORAGE_TEXTS = ("recreating the links", "mounting storage for container", "creating read-write layer")
NOT_STOPPED = "as it could not be stopped"
WRONG_FORMAT = "exec format error"


class ApiError(Exception):
    """Podman answered a request with an error status."""

    def __init__(self, status: int, request: str, message: str) -> None:
        super().__init__(f"{request}: {status} {message}")
        self.status = status
        self.message = message


class InspectFailed(BackendError):
    """Podman has the container, and cannot tell about it."""

    def __init__(self, message: str) -> None:
        super().__init__("InspectFailed", message, retryable=True)


class ImageUnreadable(BackendError):
    """Podman has the image, and cannot tell about it."""

    def __init__(self, message: str) -> None:
        super().__init__("ImageUnreadable", message, retryable=True)


def pull_error(reference: str, text: str) -> BackendError:
    """Why a pull failed, and whether it may work later."""
    lower = text.lower()
    message = f"cannot pull {reference}: {_short(text)}"
    if NO_SPACE in lower:
        return BackendError("DiskFull", f"{message}; free space on this device", retryable=True)
    if any(known in lower for known in NOT_FOUND_TEXTS):
        return BackendError("ImageNotFound", f"the registry does not have {reference}", retryable=False)
    if any(known in lower for known in DENIED_TEXTS):
        return BackendError("ImagePullDenied", message, retryable=True)
    return BackendError("ImagePullFailed", message, retryable=True)


def start_error(workload: Workload, text: str) -> BackendError:
    """Why a container could not be created or started."""
    lower = text.lower()
    if "address already in use" in lower or "port is already allocated" in lower:
        return BackendError("PortInUse", f"{_taken_port(workload, text)} of this device is in use", retryable=True)
    if NO_SPACE in lower:
        return BackendError("DiskFull", f"cannot start {workload.name}: {_short(text)}", retryable=True)
    if "no such image" in lower or "image not known" in lower:
        message = f"{workload.artifact.reference} is not on this device"
        return BackendError("NotPrepared", message, retryable=False)
    if WRONG_FORMAT in lower:
        return BackendError("WrongArchitecture", f"cannot start {workload.name}: {_short(text)}", retryable=False)
    if "unresolvable cdi" in lower:
        wanted = ", ".join(workload.devices)
        message = f"this device has no {wanted}; make the CDI file of its accelerator in /etc/cdi"
        return BackendError("DeviceMissing", message, retryable=True)
    if "statfs" in lower or "bind source" in lower or "mount source" in lower:
        return BackendError("MountSourceMissing", f"cannot start {workload.name}: {_short(text)}", retryable=False)
    if any(known in lower for known in STORAGE_TEXTS):
        return BackendError("StartFailed", f"cannot start {workload.name}: {_short(text)}", retryable=True)
    if any(known in lower for known in COMMAND_TEXTS):
        return BackendError("CommandNotFound", f"cannot start {workload.name}: {_short(text)}", retryable=False)
    if "permission denied" in lower:
        return BackendError("CommandNotExecutable", f"cannot start {workload.name}: {_short(text)}", retryable=False)
    return BackendError("StartFailed", f"cannot start {workload.name}: {_short(text)}", retryable=True)


def _taken_port(workload: Workload, text: str) -> str:
    """Names the port by number and by its name in the spec, as far as Podman's text tells."""
    found = re.search(r":(\d+): bind", text)
    names = {port.host_port: port.name for port in workload.ports}
    if found is None:
        return "a port"
    number = int(found.group(1))
    return f"port {number} ({names[number]})" if number in names else f"port {number}"


def _short(text: str) -> str:
    """The end of a text is where Go programs tell the cause."""
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"...{text[-400:]}"
