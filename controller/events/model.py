"""Events: what is appended to the log of a project. Plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, order=True)
class Project:
    """The owner of builds and deployments. `NO_PROJECT` owns the events of devices."""

    user_id: str
    project_id: str


NO_PROJECT = Project("", "")


class EventKind(StrEnum):
    """Names as in `longshore.v1.EventKind`, without prefix."""

    BUILD = "BUILD"
    DEPLOYMENT = "DEPLOYMENT"
    INSTANCE = "INSTANCE"
    DEVICE = "DEVICE"


@dataclass(frozen=True)
class NewEvent:
    """An event before it has a number. Times in seconds since the epoch; `occurred` 0 means now."""

    project: Project
    kind: EventKind
    state: str
    build_id: str = ""
    deployment_id: str = ""
    device_id: str = ""
    revision: int = 0
    ready: bool = False
    reason: str = ""
    message: str = ""
    occurred: float = 0.0
    artifact_digest: str = ""
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """An entry of the log: `number` counts from 1 in its project."""

    number: int
    time: float
    what: NewEvent


@dataclass(frozen=True)
class Wanted:
    """Which events of a project: those of the deployment or of one of the builds, where such are named; besides, of
    this device, of one of these kinds, in one of these states, each where it is given."""

    deployment_id: str = ""
    build_ids: Sequence[str] = ()
    device_id: str = ""
    kinds: tuple[EventKind, ...] = ()
    states: tuple[str, ...] = ()
