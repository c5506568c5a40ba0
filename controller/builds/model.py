"""What the builder works on and what it gives back. Plain data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec


class BuildState(StrEnum):
    """Names as in `longshore.v1.BuildState`, without prefix."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    BUILDING = "BUILDING"
    PUSHING = "PUSHING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class ArtifactKind(StrEnum):
    """As a target of a spec writes it; names in `longshore.v1.ArtifactKind` are the same in capitals."""

    IMAGE = "image"
    BUNDLE = "bundle"


@dataclass(frozen=True)
class ContextFile:
    """A file of the build context, whose content lies complete in the upload store."""

    path: str
    digest: str
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True)
class TargetJob:
    """One target of one build, ready to be built. `repository` is where to push, without tag.

    `target` is the target's key (controller.spec.model.target_key). `secrets`: values by name, never to be logged.
    `no_cache`: every step is run, also where its layer is kept. `own_steps`: the spec's steps are Longshore's own, and
    get the settings that installing packages takes. `tag`: under which its image is pushed, and no other target's; the
    build's id where it is empty. `again`: an earlier try may have pushed there.
    """

    build_id: str
    user_id: str
    project_id: str
    name: str
    profile: str
    spec: BuildSpec
    repository: str
    deploy: DeploySpec = field(default_factory=DeploySpec)
    files: tuple[ContextFile, ...] = ()
    kind: ArtifactKind = ArtifactKind.IMAGE
    target: str = ""
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    no_cache: bool = False
    own_steps: bool = False
    tag: str = ""
    again: bool = False


@dataclass(frozen=True)
class BuiltArtifact:
    """What lies in the registry now."""

    repository: str
    digest: str
    platform: str
    size_bytes: int
    kind: ArtifactKind = ArtifactKind.IMAGE


@dataclass(frozen=True)
class BuildResult:
    """What a builder gives back.

    `artifact` is None where the spec says not to push. `notes` are sentences for people: where emulation was used,
    what would differ in a second build. `sbom` is a CycloneDX document in JSON, b"" where there is none.
    `host` names the builder host that did it.
    """

    artifact: BuiltArtifact | None
    notes: tuple[str, ...] = ()
    sbom: bytes = b""
    host: str = "local"


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
    """One target of a build and how far it is. Times in seconds since the epoch, 0 for never.

    `key` is unique in the build: the profile, and ".bundle" behind it for a bundle. `cache_key` names everything that
    the artifact depends on, "" while it is not known; `cached_from` the build whose artifact this is.
    """

    key: str
    profile: str
    platform: str
    kind: ArtifactKind = ArtifactKind.IMAGE
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
    cache_key: str = ""
    cached_from: str = ""
    host: str = ""
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.state in (BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED)


@dataclass(frozen=True)
class Build:
    """One request and its targets. `spec` is the deployment.yml as it came.

    `image_index` joins the images of several targets; None where there is none (yet). `join_next` is when joining is
    tried (again), 0 where nothing is left to join; a build that is still to be joined has not ended.
    """

    id: str
    user_id: str
    project_id: str
    name: str
    spec: bytes
    files: tuple[ContextFile, ...]
    targets: tuple[BuildTarget, ...]
    created: float
    tags: tuple[str, ...] = ()
    no_cache: bool = False
    cancel_requested: bool = False
    image_index: BuiltArtifact | None = None
    join_next: float = 0.0

    @property
    def state(self) -> BuildState:
        """SUCCEEDED when all targets are; CANCELLED or FAILED when all have ended and one did so; else the furthest
        one's."""
        states = {target.state for target in self.targets}
        if all(target.done for target in self.targets):
            if self.join_next:
                return BuildState.PUSHING
            ends = (BuildState.CANCELLED, BuildState.FAILED, BuildState.SUCCEEDED)
            return next(state for state in ends if state in states)
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
        over = all(target.done for target in self.targets) and not self.join_next
        return max(target.ended for target in self.targets) if over else 0.0
