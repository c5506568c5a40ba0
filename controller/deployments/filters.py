"""What a list of deployments or of instances is limited to. Plain data; all that is given must match."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.events.model import Project


@dataclass(frozen=True)
class TimeRange:
    """From `begin` on, and before `end`; 0 is no bound."""

    begin: float = 0.0
    end: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Owned:
    """`user_id`: all projects of this user, "" for all; `seen_by`: the user to whose projects the caller is limited, ""
    for none. `profile` and `labels` as of the calls."""

    project: Project | None = None
    user_id: str = ""
    seen_by: str = ""
    profile: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    since: TimeRange = TimeRange()

    @property
    def scope(self) -> str:
        """Tells this filter from others: pages of one are no pages of another."""
        said = {**vars(self), "labels": sorted(self.labels.items()), "states": sorted(set(self.states))}
        text = repr((type(self).__name__, sorted(said.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class DeploymentFilter(Owned):
    """`device`: id or name of one that is to run it; `states`, where given, decide alone about what is deleted."""

    include_deleted: bool = False
    device: str = ""
    created: TimeRange = TimeRange()


@dataclass(frozen=True, kw_only=True)
class InstanceFilter(Owned):
    """`device`: id or name."""

    deployment_id: str = ""
    device: str = ""
