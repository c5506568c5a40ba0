"""What a committed transaction tells the rest of the process. Hints: whoever hears one reads the store."""

from dataclasses import dataclass

from controller.events.model import Project


@dataclass(frozen=True)
class EventsAppended:
    """The log of this project has grown."""

    project: Project


@dataclass(frozen=True)
class DesiredChanged:
    """A device's desired state has a new generation."""

    device_id: str
    generation: int


@dataclass(frozen=True)
class DeviceDeleted:
    """What was a device is none any more."""

    device_id: str


@dataclass(frozen=True)
class BuildsQueued:
    """A build target waits for its turn."""


@dataclass(frozen=True)
class BuildCancelled:
    """Somebody wishes this build to end."""

    build_id: str


@dataclass(frozen=True)
class BuildEnded:
    """All targets of this build have ended, and nothing is left to join."""

    build_id: str


@dataclass(frozen=True)
class JoinDue:
    """The images of a build are to be joined."""


Signal = EventsAppended | DesiredChanged | DeviceDeleted | BuildsQueued | BuildCancelled | BuildEnded | JoinDue
