"""What a device said of itself. It is kept as the message that came; this module alone reads it for the controller."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from longshore.v1 import device_pb2

# Among the capabilities of a device: "artifact:bundle".
ARTIFACT, PROJECT_VOLUMES = "artifact:", "project-volumes"


@dataclass(frozen=True)
class Abilities:
    """What of a device's facts decides which workloads it can have; 0 and empty where it has not told. `artifacts`: the
    kinds that it runs, as an ArtifactKind names them; `accelerators`: how many of each CDI kind; `project_volumes`:
    whether it can mount some."""

    artifacts: frozenset[str]
    cpus: int
    memory_bytes: int
    accelerators: Mapping[str, int]
    project_volumes: bool = False


def abilities(facts: bytes) -> Abilities:
    told = device_pb2.DeviceFacts.FromString(facts)
    kinds = Counter(accelerator.kind for accelerator in told.accelerators)
    artifacts = (word.removeprefix(ARTIFACT) for word in told.capabilities if word.startswith(ARTIFACT))
    mounts = PROJECT_VOLUMES in told.capabilities
    return Abilities(frozenset(artifacts), told.cpus, told.memory_bytes, kinds, mounts)


def merged(before: bytes, news: device_pb2.DeviceFacts) -> bytes:
    """What is known now: an agent that has just started may not have found out all of it again. Lists come whole: those
    of the machine with whatever is told of it, that of the backend once it has answered."""
    known = device_pb2.DeviceFacts.FromString(before)
    if news.architecture:
        known.ClearField("accelerators")
        known.ClearField("disks")
    if news.capabilities:
        known.ClearField("capabilities")
    known.MergeFrom(news)
    return known.SerializeToString()
