"""The records of all deployments: at hand in memory, and durable in the agent's database."""

from collections import deque
from collections.abc import Callable

import structlog

from edge_agent.runtime.clock import Clock
from edge_agent.runtime.database import AgentDatabase, StorageError
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.record import Record
from edge_agent.runtime.record_codec import UnreadableRecord, decode, encode
from longshore.v1.types_pb2 import InstanceStatus

log = structlog.get_logger()

# What waits for a disk that takes nothing.
WAITING_LIMIT = 1000


class Memory:
    """Keeps working where the disk does not: then `problem` says so, and what could not be stored is tried again by
    `flush`. `changed` is called when `problem` changed."""

    def __init__(
        self, database: AgentDatabase, clock: Clock, changed: Callable[[], None], next_sequence: Callable[[], int]
    ) -> None:
        """`next_sequence`: as StatusSource's."""
        self._database = database
        self._next_sequence = next_sequence
        self._clock = clock
        self._changed = changed
        self._records: dict[str, Record] = {}
        self._unsaved: set[str] = set()
        # Whether a record that was replaced had secrets which the new one has not.
        self._to_wipe = False
        self._waiting: deque[tuple[InstanceStatus, float, int]] = deque(maxlen=WAITING_LIMIT)
        self.problem = ""

    @property
    def records(self) -> dict[str, Record]:
        """To be read only."""
        return self._records

    def load(self, remember: Callable[[str, bytes], None]) -> None:
        """Takes up what an earlier life stored; `remember` is given each stored status. What cannot be read is set
        aside, and its deployment begins anew."""
        try:
            found = self._database.workloads()
        except StorageError as error:
            self._failed(error)
            return
        for stored in found:
            if stored.status:
                remember(stored.deployment_id, stored.status)
            if not stored.record:
                continue
            try:
                self._records[stored.deployment_id] = decode(stored.deployment_id, stored.record, self._clock())
            except UnreadableRecord as error:
                log.error("stored_record_unreadable", deployment=stored.deployment_id, error=str(error))

    def desired(self) -> bytes | None:
        """The desired state that was stored last, as far as it can be read."""
        try:
            return self._database.desired()
        except StorageError as error:
            self._failed(error)
            return None

    def get(self, deployment_id: str) -> Record:
        return self._records.get(deployment_id) or Record(deployment_id)

    def put(self, deployment_id: str, record: Record | None, *, durable: bool = True) -> None:
        """None forgets the record. Not `durable`: it becomes so with the next that is, or by `flush`."""
        before = self._records.get(deployment_id)
        if record is None:
            self._records.pop(deployment_id, None)
        else:
            self._records[deployment_id] = record
        if record != before:
            self._unsaved.add(deployment_id)
            self._to_wipe |= bool(_secrets(before) - _secrets(record))
            if durable:
                self.flush()

    def journal(self, status: InstanceStatus, occurred: float) -> None:
        self._waiting.append((status, occurred, self._next_sequence()))
        self.flush()

    def drop(self, deployment_id: str) -> None:
        """Nothing of this deployment is left on the device."""
        self._records.pop(deployment_id, None)
        self._unsaved.discard(deployment_id)
        try:
            self._database.forget_workload(deployment_id)
        except StorageError as error:
            self._failed(error)

    def flush(self) -> None:
        try:
            while self._unsaved:
                self._save(next(iter(self._unsaved)))
            if self._to_wipe:
                self._database.wipe_log()
                self._to_wipe = False
            while self._waiting:
                reach("journal.append")
                self._database.append_journal(*self._waiting[0])
                reach("journal.appended")
                self._waiting.popleft()
        except StorageError as error:
            self._failed(error)
        else:
            self._note("")

    def _save(self, deployment_id: str) -> None:
        record = self._records.get(deployment_id)
        if record is None:
            self._database.forget_record(deployment_id)
        else:
            self._database.store_record(deployment_id, encode(record))
        self._unsaved.discard(deployment_id)

    def _failed(self, error: StorageError) -> None:
        if not self.problem:
            log.error("agent_database_failed", error=str(error))
        self._note(f"StateNotDurable: {error}; what runs is not disturbed")

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._changed()


def _secrets(record: Record | None) -> set[bytes]:
    """The values that are stored with a record."""
    workloads = (record.fallback, record.previous) if record is not None else ()
    return {secret.content for workload in workloads if workload is not None for secret in workload.secrets}
