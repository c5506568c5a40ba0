"""The statuses that are shown, and the journal of their changes. Every change of a state passes through here."""

from collections.abc import Callable

import structlog
from google.protobuf.message import DecodeError

from edge_agent.runtime.clock import Clock
from edge_agent.runtime.convert import timestamp
from edge_agent.runtime.model import State
from edge_agent.runtime.status import gone_status, state_of
from longshore.v1.types_pb2 import InstanceStatus

log = structlog.get_logger()

# Takes a status for the journal, with the time of its change.
Journal = Callable[[InstanceStatus, float], None]

_ENDS = frozenset({State.STOPPING, State.STOPPED, State.FAILED, State.BACKOFF})
_WAITS = frozenset({State.PENDING, State.FETCHING, State.STARTING})

# Which states may follow, for one revision. States that pass quickly may be left out on the way.
FOLLOWS: dict[State, frozenset[State]] = {
    State.PENDING: _WAITS | _ENDS | {State.RUNNING},
    State.FETCHING: _WAITS | _ENDS | {State.RUNNING},
    State.STARTING: _WAITS | _ENDS | {State.RUNNING},
    # Without a stop in between: the instance ended, and is fetched or started again at once.
    State.RUNNING: _WAITS | _ENDS | {State.RUNNING},
    State.STOPPING: _WAITS | _ENDS | {State.RUNNING},
    State.STOPPED: _WAITS | _ENDS | {State.RUNNING},
    State.FAILED: frozenset({State.STOPPING, State.STOPPED, State.FAILED}),
    State.BACKOFF: _WAITS | _ENDS,
}


class Board:
    """One status for each deployment, as it was told last. `changed` is called after any of them changed."""

    def __init__(self, journal: Journal, changed: Callable[[], None], clock: Clock) -> None:
        self._journal = journal
        self._changed = changed
        self._clock = clock
        self._shown: dict[str, InstanceStatus] = {}
        # The last status of each deployment that went into the journal.
        self._told: dict[str, InstanceStatus] = {}

    def remember(self, deployment_id: str, body: bytes) -> None:
        """Takes up a status of an earlier life: shown until better is known, but never as ready."""
        try:
            status = InstanceStatus.FromString(body)
        except DecodeError:
            log.warning("stored_status_unreadable", deployment=deployment_id)
            return
        self._told[deployment_id] = status
        self._shown[deployment_id] = _copy(status)
        self._withdraw(self._shown[deployment_id])

    def statuses(self) -> list[InstanceStatus]:
        """Copies, in order of the deployment ids."""
        return [_copy(status) for _, status in sorted(self._shown.items())]

    def shown(self, deployment_id: str) -> InstanceStatus | None:
        return self._shown.get(deployment_id)

    def known(self) -> set[str]:
        return set(self._shown)

    def apply(self, status: InstanceStatus) -> None:
        """This is so now. A change of revision, state, readiness or reason goes into the journal first."""
        key = status.deployment_id
        told = self._told.get(key)
        if told is not None and _key(told) == _key(status):
            status.since.CopyFrom(told.since)
        else:
            self._tell(status, told)
        if self._shown.get(key) != status:
            self._shown[key] = status
            self._changed()

    def hold(self, deployment_id: str) -> None:
        """Something has happened that is not understood yet: until it is, nothing is claimed to be ready."""
        shown = self._shown.get(deployment_id)
        if shown is not None and shown.ready:
            self._withdraw(shown)
            self._changed()

    def drop(self, deployment_id: str) -> None:
        """The deployment is gone from this device."""
        shown = self._shown.pop(deployment_id, None)
        told = self._told.get(deployment_id)
        if shown is not None:
            self._tell(gone_status(shown), told)
            self._changed()
        self._told.pop(deployment_id, None)

    def _tell(self, status: InstanceStatus, before: InstanceStatus | None) -> None:
        now = self._clock().wall
        status.since.CopyFrom(timestamp(now))
        state = state_of(status)
        if before is not None and not may_follow(before, status):
            # What is observed is true all the same.
            log.error("unexpected_transition", deployment=status.deployment_id, before=state_of(before), after=state)
        log.info(
            "instance_state",
            deployment=status.deployment_id,
            revision=status.revision,
            state=str(state),
            ready=status.ready,
            reason=status.reason,
            message=status.message,
        )
        self._told[status.deployment_id] = _copy(status)
        self._journal(status, now)

    @staticmethod
    def _withdraw(status: InstanceStatus) -> None:
        if status.ready:
            status.ready = False
            status.reason, status.message = "NotObserved", "its readiness is being asked for"


def may_follow(before: InstanceStatus, after: InstanceStatus) -> bool:
    """Whether the transition table allows this; another revision begins anew."""
    return before.revision != after.revision or state_of(after) in FOLLOWS[state_of(before)]


def _copy(status: InstanceStatus) -> InstanceStatus:
    copy = InstanceStatus()
    copy.CopyFrom(status)
    return copy


def _key(status: InstanceStatus) -> tuple[object, ...]:
    return (status.revision, status.state, status.ready, status.reason)
