"""The agent's memory on disk."""

import base64
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.runtime import database as database_module
from edge_agent.runtime.convert import workload_to_pb
from edge_agent.runtime.database import AgentDatabase, StorageError
from edge_agent.runtime.memory import Memory
from edge_agent.runtime.model import Secret
from edge_agent.runtime.record import Record
from longshore.v1.agent_pb2 import DesiredState
from longshore.v1.types_pb2 import InstanceStatus
from tests.support.workloads import at, make_workload

WRITER = """
import sys
from pathlib import Path
from edge_agent.runtime.database import AgentDatabase
from longshore.v1.types_pb2 import InstanceStatus
database = AgentDatabase(Path(sys.argv[1]))
while True:
    number = database.append_journal(InstanceStatus(deployment_id="d1"), 1.0)
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agent.db"


def desired(generation: int) -> bytes:
    return DesiredState(device_id="v", generation=generation).SerializeToString()


def entry(deployment_id: str = "d1") -> InstanceStatus:
    return InstanceStatus(deployment_id=deployment_id, reason="Ready")


def test_a_new_database_holds_nothing(path: Path) -> None:
    database = AgentDatabase(path)
    assert database.desired() is None
    assert database.unacknowledged(10) == []
    assert database.workloads() == []


def test_the_generation_of_the_desired_state_only_grows(path: Path) -> None:
    database = AgentDatabase(path)
    assert database.store_desired(desired(2))
    assert not database.store_desired(desired(1))
    assert database.desired() == desired(2)
    assert database.store_desired(desired(2))
    assert database.store_desired(desired(3))
    assert AgentDatabase(path).desired() == desired(3)


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def with_secret(generation: int, *values: bytes) -> bytes:
    wish = DesiredState(device_id="v", generation=generation)
    for value in values:
        wish.workloads.add().workload.spec.secrets.add(name="token", content=value)
    return wish.SerializeToString()


def test_secret_that_a_newer_desired_state_replaces_is_on_no_disk_any_more(path: Path) -> None:
    database = AgentDatabase(path)
    database.store_desired(with_secret(1, b"hunter2", b"kept"))
    database.store_desired(with_secret(2, b"swordfish", b"kept"))
    assert (b"hunter2" in on_disk(path), b"swordfish" in on_disk(path)) == (False, True)
    database.store_desired(desired(3))
    assert b"swordfish" not in on_disk(path)


def test_secret_that_a_killed_agent_has_replaced_is_gone_once_the_next_begins(path: Path) -> None:
    killed = AgentDatabase(path)
    killed.store_record("d1", b"hunter2")
    killed.store_record("d1", b"another")
    assert b"hunter2" in on_disk(path)
    AgentDatabase(path)
    assert b"hunter2" not in on_disk(path)
    killed.close()


def test_secret_that_a_newer_record_replaces_is_on_no_disk_any_more(path: Path) -> None:
    memory = Memory(AgentDatabase(path), lambda: at(0.0), lambda: None, iter(range(100)).__next__)
    tokens = [make_workload(n, secrets=(Secret("token", "/token", b"secret" * 9 + bytes([48 + n])),)) for n in range(4)]
    stored = [base64.b64encode(workload_to_pb(token).SerializeToString())[:200] for token in tokens]
    record = Record("d1")
    for token in tokens[:3]:
        record = replace(record, fallback=token, previous=record.fallback)
        memory.put("d1", record)
    assert [text in on_disk(path) for text in stored] == [False, True, True, False]
    memory.put("d1", None)
    assert [text in on_disk(path) for text in stored] == [False] * 4


def test_nothing_of_a_secret_is_left_on_disk_once_its_deployment_is_forgotten(path: Path) -> None:
    database, value = AgentDatabase(path), b"hunter2" * 1000

    database.store_desired(with_secret(1, value))
    database.store_record("d1", value)
    database.append_journal(entry(), 1.0)
    assert value[:100] in on_disk(path)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    database.store_desired(desired(2))
    database.forget_record("d1")
    database.forget_workload("d1")
    assert b"hunter2" not in on_disk(path)
    assert database.desired() == desired(2)


def test_the_journal_is_numbered_without_gaps_across_restarts(path: Path) -> None:
    first = AgentDatabase(path)
    assert [first.append_journal(entry(), 1.5), first.append_journal(entry(), 2.5)] == [1, 2]
    first.acknowledge(first.journal_id, 2)
    first.close()
    second = AgentDatabase(path)
    assert second.append_journal(entry(), 3.5) == 3
    (kept,) = second.unacknowledged(10)
    assert (kept.number, kept.journal_id) == (3, first.journal_id)
    assert kept.occurred.ToMilliseconds() == 3500


def test_entries_stay_until_they_are_acknowledged_in_their_own_journal(path: Path) -> None:
    database = AgentDatabase(path)
    for _ in range(5):
        database.append_journal(entry(), 1.0)
    database.acknowledge("another journal", 5)
    assert [e.number for e in database.unacknowledged(3)] == [1, 2, 3]
    database.acknowledge(database.journal_id, 3)
    assert [e.number for e in database.unacknowledged(10)] == [4, 5]


def test_a_full_journal_begins_anew_with_its_newest_half(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "JOURNAL_LIMIT", 10)
    database = AgentDatabase(path)
    first_id = database.journal_id
    for number in range(10):
        database.append_journal(entry(f"d{number}"), 1.0)
    assert database.append_journal(entry("d10"), 1.0) == 6
    kept = database.unacknowledged(100)
    assert [e.number for e in kept] == [1, 2, 3, 4, 5, 6]
    assert [e.instance.deployment_id for e in kept] == ["d5", "d6", "d7", "d8", "d9", "d10"]
    assert {e.journal_id for e in kept} == {database.journal_id} != {first_id}
    assert AgentDatabase(path).journal_id == database.journal_id


def test_the_last_status_and_the_record_of_a_deployment_are_kept_until_it_is_forgotten(path: Path) -> None:
    database = AgentDatabase(path)
    database.store_record("d1", b"record")
    database.append_journal(entry(), 1.0)
    (stored,) = AgentDatabase(path).workloads()
    assert (stored.deployment_id, stored.record) == ("d1", b"record")
    assert InstanceStatus.FromString(stored.status) == entry()
    database.forget_record("d1")
    assert database.workloads()[0].record == b""
    database.forget_workload("d1")
    assert database.workloads() == []


def test_what_was_stored_survives_a_kill_at_any_moment(path: Path) -> None:
    told = 0
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        with writer.stdout as output:
            for _ in range(25):
                told = int(output.readline())
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            for line in output:
                if line.endswith("\n"):
                    told = int(line)
    database = AgentDatabase(path)
    numbers = [e.number for e in database.unacknowledged(10_000)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= told


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(path: Path) -> None:
    first = AgentDatabase(path)
    first.store_desired(desired(5))
    first.close()
    path.write_bytes(b"this is no database at all" * 200)
    second = AgentDatabase(path)
    assert second.desired() is None
    assert second.journal_id != first.journal_id
    assert second.store_desired(desired(1))
    (aside,) = path.parent.glob("agent.db.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")


def test_a_file_with_a_damaged_page_is_set_aside(path: Path) -> None:
    first = AgentDatabase(path)
    for _ in range(200):
        first.append_journal(entry(), 1.0)
    first.close()
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)
    assert AgentDatabase(path).append_journal(entry(), 1.0) == 1
    assert list(path.parent.glob("agent.db.damaged-*"))


def test_a_folder_in_the_way_is_no_damage_and_stays(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot open"):
        AgentDatabase(path)
    assert path.is_dir()


def test_a_database_that_takes_nothing_says_so_by_one_error(path: Path) -> None:
    database = AgentDatabase(path)
    database.close()
    with pytest.raises(StorageError):
        database.append_journal(entry(), 1.0)
    with pytest.raises(StorageError):
        database.desired()
