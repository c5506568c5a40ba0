"""The agent's own words: workloads as wished, instances as observed. Plain data, no I/O.

The enum values and fields mirror `longshore.v1.types`; `edge_agent.runtime.convert` is the only place that knows both.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, StrEnum

# Of what a registry holds.
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class State(StrEnum):
    """States of an instance; the order and meaning are those of `longshore.v1.InstanceState`."""

    PENDING = "PENDING"
    FETCHING = "FETCHING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    BACKOFF = "BACKOFF"


class UpdateStrategy(Enum):
    """How a new revision takes the place of the one that runs."""

    AUTO = "auto"
    START_FIRST = "start-first"
    STOP_FIRST = "stop-first"


class ArtifactKind(Enum):
    IMAGE = "image"
    BUNDLE = "bundle"


class RestartPolicy(Enum):
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


@dataclass(frozen=True)
class Port:
    """A port of a workload; `host_port` 0 lets the device pick a free one."""

    name: str
    container_port: int
    host_port: int = 0


@dataclass(frozen=True)
class Mount:
    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Volume:
    """A folder that the device keeps for one deployment, over its restarts and revisions."""

    name: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ProjectVolume:
    """Files that are the same on all devices: what lies in the registry as `repository@digest`, seen read-only at
    `target`. `size`: of all files, in bytes."""

    name: str
    target: str
    repository: str
    digest: str
    size: int = 0

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Secret:
    """A file at `target` inside that only this workload can read. Its content is in no text of this object."""

    name: str
    target: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Resources:
    """Limits; 0 and "" mean none. `cpu_set` as in cpuset(7): "0-2,5"."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    pids: int = 0
    shared_memory_bytes: int = 0
    cpu_set: str = ""


@dataclass(frozen=True)
class HttpProbe:
    port: str
    path: str


@dataclass(frozen=True)
class TcpProbe:
    port: str


@dataclass(frozen=True)
class CommandProbe:
    command: tuple[str, ...]


@dataclass(frozen=True)
class InferenceProbe:
    """A sample request to the served model: `expect` (JSON) is what the answer has to hold, numbers within
    `tolerance`, in `latency` seconds (0: only the check's timeout counts)."""

    port: str
    path: str
    request: bytes
    content_type: str = "application/json"
    expect: str = "{}"
    tolerance: float = 0.0
    latency: float = 0.0


Probe = HttpProbe | TcpProbe | CommandProbe | InferenceProbe


@dataclass(frozen=True)
class Check:
    """A check of readiness or liveness; times in seconds. `deadline` is of readiness only."""

    probe: Probe
    period: float = 10.0
    timeout: float = 2.0
    deadline: float = 120.0
    failure_threshold: int = 3


@dataclass(frozen=True)
class Artifact:
    """What is installed: `repository@digest` names it for ever."""

    repository: str
    digest: str
    platform: str
    kind: ArtifactKind = ArtifactKind.IMAGE

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Workload:
    """One deployment's part on this device, as wished. `key` names one revision of it."""

    deployment_id: str
    revision: int
    name: str
    user_id: str
    project_id: str
    artifact: Artifact
    readiness: Check
    entrypoint: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    restart: RestartPolicy = RestartPolicy.ALWAYS
    stop_grace: float = 10.0
    # By the Container Device Interface: "nvidia.com/gpu=all".
    devices: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    liveness: Check | None = None
    update: UpdateStrategy = UpdateStrategy.AUTO
    # Names of what is loosened of the safe defaults: see `longshore.v1.WorkloadSpec.allow`.
    allow: frozenset[str] = frozenset()
    project_volumes: tuple[ProjectVolume, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """Of all that has to be on the device."""
        return frozenset({self.artifact.digest, *(volume.digest for volume in self.project_volumes)})

    @property
    def key(self) -> tuple[str, int]:
        return (self.deployment_id, self.revision)

    def port(self, name: str) -> Port:
        """The port with this name; KeyError where there is none."""
        for port in self.ports:
            if port.name == name:
                return port
        raise KeyError(name)


@dataclass(frozen=True)
class Desired:
    """The whole wish for this device. `stopped` holds the ids of deployments that are wished, but stopped."""

    generation: int
    workloads: tuple[Workload, ...] = ()
    stopped: frozenset[str] = frozenset()
