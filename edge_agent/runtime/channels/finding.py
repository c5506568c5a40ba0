"""Which instance a session is about."""

from collections.abc import Sequence

from edge_agent.runtime.backend import Observed, Phase
from edge_agent.runtime.channels.wire import CannotServe


def newest(instances: Sequence[Observed], deployment_id: str) -> Observed:
    """The one of which a user speaks. Raises CannotServe where there is none."""
    if not instances:
        raise CannotServe("NoSuchInstance", f"no instance of {deployment_id} is on this device")
    return instances[0]


def running(instances: Sequence[Observed], deployment_id: str) -> Observed:
    """The one that runs. Raises CannotServe where none does."""
    found = newest(instances, deployment_id)
    if found.phase is not Phase.RUNNING:
        raise CannotServe("NotRunning", f"the instance of {deployment_id} on this device does not run")
    return found


def previous(instances: Sequence[Observed]) -> Observed | None:
    """The one before the one of which a user speaks, where it is still there."""
    return next((one for one in instances[1:] if one.phase is not Phase.RUNNING and one.started_at), None)
