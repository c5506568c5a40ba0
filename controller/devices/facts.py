"""What a device said of itself. It is kept as the message that came; this module alone reads it for the controller."""

from dataclasses import dataclass

from longshore.v1 import device_pb2


@dataclass(frozen=True)
class Abilities:
    """What of a device's facts decides which workloads it can have; 0 and "" where it has not told."""

    backend: str
    cpus: int
    memory_bytes: int


def abilities(facts: bytes) -> Abilities:
    told = device_pb2.DeviceFacts.FromString(facts)
    return Abilities(told.backend, told.cpus, told.memory_bytes)


def merged(before: bytes, news: device_pb2.DeviceFacts) -> bytes:
    """What is known now: an agent that has just started may not have found out all of it again."""
    known = device_pb2.DeviceFacts.FromString(before)
    known.MergeFrom(news)
    return known.SerializeToString()
