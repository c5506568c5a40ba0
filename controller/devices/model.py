"""Devices and enroll tokens. Plain data; times in seconds since the epoch, 0 for never."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Presence(StrEnum):
    """Names as in `longshore.v1.DevicePresence`, without prefix."""

    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"
    UNKNOWN = "UNKNOWN"


class Scheduling(StrEnum):
    """Names as in `longshore.v1.DeviceScheduling`, without prefix."""

    OPEN = "OPEN"
    CORDONED = "CORDONED"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"

    @property
    def drains(self) -> bool:
        return self in (Scheduling.DRAINING, Scheduling.DRAINED)


@dataclass(frozen=True)
class Device:
    """An enrolled machine. `facts` is a serialized `longshore.v1.DeviceFacts`."""

    id: str
    name: str
    profile: str
    enrolled: float
    labels: Mapping[str, str] = field(default_factory=dict)
    presence: Presence = Presence.UNKNOWN
    session: int = 0
    last_seen: float = 0.0
    facts: bytes = b""
    generation: int = 0
    observed_generation: int = 0
    condition: str = ""
    snapshot_sequence: int = 0
    journal_id: str = ""
    journal_number: int = 0
    scheduling: Scheduling = Scheduling.OPEN
    scheduling_since: float = 0.0
    scheduling_by: str = ""
    scheduling_reason: str = ""


@dataclass(frozen=True)
class EnrollToken:
    """What a one-time token permits. Only the hash of its secret is kept."""

    secret_hash: str
    device_name: str
    labels: Mapping[str, str]
    profile: str
    expires: float


@dataclass(frozen=True)
class SpentToken:
    """Which device a token has made, and by which key."""

    secret_hash: str
    key_hash: str
    device_id: str
    expires: float
