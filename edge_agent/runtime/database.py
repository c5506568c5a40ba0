"""The agent's memory on disk: desired state, journal, records of its workloads. One SQLite file.

What a call has stored is durable when it returns. All of it may be lost: the agent then starts over from the
controller and adopts what runs. It has values of secrets: only its user may read it, and what is deleted is wiped.
"""

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from edge_agent.runtime.convert import timestamp
from longshore.v1 import agent_pb2, mqtt_pb2, types_pb2

log = structlog.get_logger()

JOURNAL_LIMIT = 10_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS desired (
  id INTEGER PRIMARY KEY CHECK (id = 1), generation INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS workloads (deployment_id TEXT PRIMARY KEY, record BLOB, status BLOB) WITHOUT ROWID;
"""


class StorageError(Exception):
    """The agent's database does not take or give what it should: disk full, or the file is damaged."""


@dataclass(frozen=True)
class StoredWorkload:
    """What is remembered of one deployment; empty bytes where there is none of it."""

    deployment_id: str
    record: bytes
    status: bytes


class AgentDatabase:
    """Opens the file, or begins a new one; a damaged one is set aside first. Not for use by several threads.

    Methods raise StorageError; they take about a millisecond.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise StorageError(f"cannot open {path}: {error}") from error
            aside = _set_aside(path)
            log.error("agent_database_damaged", path=str(path), set_aside=str(aside), error=str(error))
            self._connection = _open(path)
        self.journal_id = self._begin_journal()
        # An agent that was killed may have left replaced secrets in the log of changes.
        self._try_to_wipe_log()

    def close(self) -> None:
        self._connection.close()

    # Desired state.

    def desired(self) -> bytes | None:
        """The newest serialized DesiredState that was stored."""
        row = self._one("SELECT body FROM desired")
        return row[0] if row else None

    def store_desired(self, body: bytes) -> bool:
        """False, and nothing is stored, where the generation is older than the one that is held. Secrets that only the
        one before had are on no disk any more."""
        generation = agent_pb2.DesiredState.FromString(body).generation
        with self._transaction() as connection:
            held = connection.execute("SELECT generation, body FROM desired").fetchone()
            if held is not None and generation < held[0]:
                return False
            connection.execute("INSERT OR REPLACE INTO desired VALUES (1, ?, ?)", (generation, body))
        if held is not None and _secrets(_bytes(held[1])) - _secrets(body):
            self._try_to_wipe_log()
        return True

    # The journal.

    def append_journal(self, instance: types_pb2.InstanceStatus, occurred: float, sequence: int = 0) -> int:
        """The number of the new entry: one more than the last, across restarts. The status becomes the one that
        `workloads` tells for its deployment.

        At 10 000 unacknowledged entries a new journal begins with the newest half of them, numbered from 1, so that
        no journal has a gap; the oldest changes of state are lost to the controller, the present state never is.
        """
        with self._transaction() as connection:
            self._make_room(connection)
            number = _next(connection, "journal")
            entry = mqtt_pb2.JournalEntry(
                number=number, journal_id=self.journal_id, instance=instance, occurred=timestamp(occurred)
            )
            entry.sequence = sequence
            connection.execute("INSERT INTO journal VALUES (?, ?)", (number, entry.SerializeToString()))
            connection.execute(
                "INSERT INTO workloads (deployment_id, status) VALUES (?, ?)"
                " ON CONFLICT (deployment_id) DO UPDATE SET status = excluded.status",
                (instance.deployment_id, instance.SerializeToString()),
            )
        return number

    def unacknowledged(self, limit: int) -> list[mqtt_pb2.JournalEntry]:
        """The oldest entries that are not acknowledged, in order of their numbers."""
        rows = self._all("SELECT body FROM journal ORDER BY number LIMIT ?", limit)
        return [mqtt_pb2.JournalEntry.FromString(row[0]) for row in rows]

    def acknowledge(self, journal_id: str, number: int) -> None:
        """All entries up to this number are durable at the controller. Another journal's number says nothing."""
        if journal_id != self.journal_id:
            return
        with self._transaction() as connection:
            connection.execute("DELETE FROM journal WHERE number <= ?", (number,))

    # What is remembered of each deployment.

    def workloads(self) -> list[StoredWorkload]:
        rows = self._all("SELECT deployment_id, record, status FROM workloads ORDER BY deployment_id")
        return [StoredWorkload(str(key), _bytes(record), _bytes(status)) for key, record, status in rows]

    def store_record(self, deployment_id: str, record: bytes) -> None:
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO workloads (deployment_id, record) VALUES (?, ?)"
                " ON CONFLICT (deployment_id) DO UPDATE SET record = excluded.record",
                (deployment_id, record),
            )

    def forget_record(self, deployment_id: str) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE workloads SET record = NULL WHERE deployment_id = ?", (deployment_id,))

    def forget_workload(self, deployment_id: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM workloads WHERE deployment_id = ?", (deployment_id,))
        self.wipe_log()

    def wipe_log(self) -> None:
        """What was replaced or deleted is in none of the files any more: the log of changes has it until then. Where a
        reader holds that, a later change writes over it. Takes as long as a few changes."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    def _try_to_wipe_log(self) -> None:
        try:
            self.wipe_log()
        except StorageError as error:
            # What was to be stored is. The next that is wiped, or the next start, tries again.
            log.warning("log_of_changes_not_wiped", error=str(error))

    def _begin_journal(self) -> str:
        row = self._one("SELECT value FROM meta WHERE name = 'journal_id'")
        if row:
            return str(row[0])
        with self._transaction() as connection:
            return _new_journal_id(connection)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        held = connection.execute("SELECT count(*) FROM journal").fetchone()[0]
        if held < JOURNAL_LIMIT:
            return
        rows = connection.execute("SELECT body FROM journal ORDER BY number DESC LIMIT ?", (JOURNAL_LIMIT // 2,))
        kept = [mqtt_pb2.JournalEntry.FromString(row[0]) for row in rows][::-1]
        connection.execute("DELETE FROM journal")
        journal_id = _new_journal_id(connection)
        for number, entry in enumerate(kept, start=1):
            entry.number, entry.journal_id = number, journal_id
            connection.execute("INSERT INTO journal VALUES (?, ?)", (number, entry.SerializeToString()))
        connection.execute("UPDATE counters SET value = ? WHERE name = 'journal'", (len(kept),))
        log.warning("journal_full", lost=held - len(kept), journal_id=journal_id)
        self.journal_id = journal_id

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        journal_id = getattr(self, "journal_id", "")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.journal_id = journal_id
            raise StorageError(f"{self._path}: {error}") from error
        finally:
            with suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _one(self, query: str) -> tuple[Any, ...] | None:
        rows = self._all(query)
        return rows[0] if rows else None

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error


def _secrets(desired: bytes) -> set[bytes]:
    """The values in a serialized DesiredState, as far as it can be read."""
    try:
        workloads = agent_pb2.DesiredState.FromString(desired).workloads
    except DecodeError:
        return set()
    return {secret.content for entry in workloads for secret in entry.workload.spec.secrets}


def _bytes(value: object) -> bytes:
    # SQLite gives back what somebody put there, of whatever type.
    return value if isinstance(value, bytes) else str(value or "").encode()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        # Its companions get the same rights.
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        # Without FULL a power cut may take back what was acknowledged.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise sqlite3.DatabaseError(f"quick_check: {result}")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damage(error: sqlite3.OperationalError) -> bool:
    # A full disk, a missing right or a lock is no damage: the file must stay where it is.
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"))


def _set_aside(path: Path) -> Path:
    """Renames the file and its companions; the last one that was set aside is kept, older ones are not."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for old in path.parent.glob(f"{path.name}.damaged-*"):
        old.unlink(missing_ok=True)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.rename(aside)
    return aside


def _next(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute(
        "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value", (name,)
    ).fetchone()
    return int(row[0])


def _new_journal_id(connection: sqlite3.Connection) -> str:
    journal_id = uuid.uuid4().hex
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('journal_id', ?)", (journal_id,))
    connection.execute("INSERT OR REPLACE INTO counters VALUES ('journal', 0)")
    return journal_id
