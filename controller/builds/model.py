"""What the builder works on and what it gives back. Plain data."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.spec.model import BuildSpec


class BuildState(StrEnum):
    """Names as in `longshore.v1.BuildState`, without prefix."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    BUILDING = "BUILDING"
    PUSHING = "PUSHING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class ContextFile:
    """A file of the build context, whose content lies complete in the upload store."""

    path: str
    digest: str
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True)
class TargetJob:
    """One target of one build, ready to be built. `repository` is where to push, without tag."""

    build_id: str
    user_id: str
    project_id: str
    name: str
    profile: str
    spec: BuildSpec
    entrypoint: tuple[str, ...]
    ports: tuple[int, ...]
    files: tuple[ContextFile, ...]
    repository: str


@dataclass(frozen=True)
class BuiltArtifact:
    """What lies in the registry now."""

    repository: str
    digest: str
    platform: str
    size_bytes: int


class BuildFailed(Exception):
    """A build's result, not an accident: reason in UpperCamelCase, a sentence, the step, the last lines (<= 20).

    `retryable`: the cause lies outside of the request (registry down, disk full, Podman missing); the queue may try
    it again with back-off. Otherwise the same request fails again.
    """

    def __init__(
        self, reason: str, message: str, *, step: str = "", last_lines: tuple[str, ...] = (), retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.step = step
        self.last_lines = last_lines
        self.retryable = retryable


# Called with (stream, text) for each line of output; stream is "stdout", "stderr" or "system". Never blocks.
OnLine = Callable[[str, str], None]
# Called when the target enters PREPARING, BUILDING, PUSHING.
OnState = Callable[[BuildState], None]


@dataclass(frozen=True)
class RegistryAccess:
    """How to reach the registry: host:port, a CA file for it (or the system's), and credentials for pushing.

    `credentials` is called before each use, since they are short-lived.
    """

    address: str
    ca_file: Path | None
    credentials: Callable[[], tuple[str, str]]


@dataclass(frozen=True)
class BuildTarget:
    """One target of a build and how far it is. Times in seconds since the epoch, 0 for never."""

    profile: str
    platform: str
    state: BuildState = BuildState.QUEUED
    reason: str = ""
    message: str = ""
    failed_step: str = ""
    last_lines: tuple[str, ...] = ()
    artifact: BuiltArtifact | None = None
    started: float = 0.0
    ended: float = 0.0
    attempts: int = 0
    next_try: float = 0.0

    @property
    def done(self) -> bool:
        return self.state in (BuildState.SUCCEEDED, BuildState.FAILED)


@dataclass(frozen=True)
class Build:
    """One request and its targets. `spec` is the deployment.yml as it came."""

    id: str
    user_id: str
    project_id: str
    name: str
    spec: bytes
    files: tuple[ContextFile, ...]
    targets: tuple[BuildTarget, ...]
    created: float

    @property
    def state(self) -> BuildState:
        """SUCCEEDED when all targets are, FAILED when all have ended and one failed, else the furthest one's."""
        states = {target.state for target in self.targets}
        if all(target.done for target in self.targets):
            return BuildState.FAILED if BuildState.FAILED in states else BuildState.SUCCEEDED
        for state in (BuildState.PUSHING, BuildState.BUILDING, BuildState.PREPARING):
            if state in states:
                return state
        return BuildState.QUEUED

    @property
    def failure(self) -> BuildTarget | None:
        """The first target that failed."""
        return next((target for target in self.targets if target.state is BuildState.FAILED), None)

    @property
    def ended(self) -> float:
        return max(target.ended for target in self.targets) if all(target.done for target in self.targets) else 0.0
