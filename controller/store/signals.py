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
class BuildsQueued:
    """A build target waits for its turn."""


Signal = EventsAppended | DesiredChanged | BuildsQueued
