"""What an agent keeps beside its database: identity, growing numbers, lock; and what it knows of its machine."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from edge_agent.runtime.addresses import local_address_towards, parse_address
from edge_agent.runtime.backoff import Backoff
from edge_agent.runtime.facts import device_facts
from edge_agent.runtime.files import write_durably
from edge_agent.runtime.identity import (
    AlreadyRunning,
    IdentityMaterial,
    InvalidIdentity,
    NotEnrolled,
    commit_identity,
    discard_leftovers,
    holder,
    load_identity,
    prepare_folder,
    state_lock,
)
from edge_agent.runtime.numbers import RUN_BITS, GrowingNumbers


def material(device_id: str) -> IdentityMaterial:
    return IdentityMaterial(
        device_id=device_id,
        device_name=f"name of {device_id}",
        agent_address="controller.example:7443",
        broker_address="broker.example:8883",
        owner="first",
        key=b"key",
        certificate=b"certificate",
        ca=b"ca",
    )


def test_an_identity_is_read_as_it_was_stored_and_its_key_is_private(tmp_path: Path) -> None:
    stored = commit_identity(tmp_path, prepare_folder(tmp_path, b"key"), material("d1"))
    assert load_identity(tmp_path) == stored
    assert stored.device_id == "d1"
    assert stored.owner == "first"
    assert stored.key_file.read_bytes() == b"key"
    assert stored.ca_file.read_bytes() == b"ca"
    assert stat.S_IMODE(stored.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.key_file.parent.stat().st_mode) == 0o700


def test_an_enrollment_cut_short_before_its_end_leaves_nothing_usable(tmp_path: Path) -> None:
    prepare_folder(tmp_path, b"key")
    with pytest.raises(NotEnrolled, match="enroll TOKEN"):
        load_identity(tmp_path)


def test_an_enrollment_cut_short_leaves_the_identity_before_it_whole(tmp_path: Path) -> None:
    before = commit_identity(tmp_path, prepare_folder(tmp_path, b"key"), material("d1"))
    abandoned = prepare_folder(tmp_path, b"other key")
    assert load_identity(tmp_path) == before
    discard_leftovers(tmp_path)
    assert not abandoned.exists()
    assert load_identity(tmp_path) == before


def test_a_new_identity_replaces_the_old_one_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    before = commit_identity(tmp_path, prepare_folder(tmp_path, b"key"), material("d1"))
    after = commit_identity(tmp_path, prepare_folder(tmp_path, b"key"), material("d2"))
    assert load_identity(tmp_path) == after
    assert after.device_id == "d2"
    assert not before.key_file.exists()


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"version": 2}'])
def test_a_damaged_identity_is_an_error_that_says_what_to_do(tmp_path: Path, damage: str) -> None:
    (tmp_path / "identity.json").write_text(damage)
    with pytest.raises(InvalidIdentity, match="--force"):
        load_identity(tmp_path)


def test_an_identity_without_its_key_is_not_usable(tmp_path: Path) -> None:
    stored = commit_identity(tmp_path, prepare_folder(tmp_path, b"key"), material("d1"))
    stored.key_file.unlink()
    with pytest.raises(InvalidIdentity, match="missing"):
        load_identity(tmp_path)


def test_a_second_holder_of_a_state_folder_is_refused_until_the_first_has_left(tmp_path: Path) -> None:
    with state_lock(tmp_path), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"), state_lock(tmp_path):
        pass
    with state_lock(tmp_path):
        assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) == 0


def test_numbers_grow_within_a_run_and_over_restarts(tmp_path: Path) -> None:
    numbers = [source.next() for source in (GrowingNumbers(tmp_path), GrowingNumbers(tmp_path)) for _ in range(3)]
    assert numbers == sorted(set(numbers))


def test_numbers_grow_although_the_clock_went_back(tmp_path: Path) -> None:
    write_durably(tmp_path / "run-number", f"{int(time.time()) + 10**6}\n".encode(), 0o600)
    first = GrowingNumbers(tmp_path).next()
    assert first >> RUN_BITS == int((tmp_path / "run-number").read_text())
    assert GrowingNumbers(tmp_path).next() > first
    assert first < 2**53


def test_numbers_grow_although_the_state_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = GrowingNumbers(tmp_path).next()
    (tmp_path / "run-number").unlink()
    later = time.time() + 2
    monkeypatch.setattr(time, "time", lambda: later)
    assert GrowingNumbers(tmp_path).next() > first


def test_a_run_that_has_used_its_numbers_becomes_the_next_run(tmp_path: Path) -> None:
    numbers = GrowingNumbers(tmp_path)
    first = numbers.next()
    numbers._used = 1 << RUN_BITS
    assert numbers.next() >> RUN_BITS == (first >> RUN_BITS) + 1


def test_facts_come_from_the_file_system_under_the_given_root(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:        1024 kB\nMemFree:  1 kB\n")
    (tmp_path / "etc/os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    facts = device_facts("0.1", tmp_path)
    assert facts.memory_bytes == 1024 * 1024
    assert facts.os == "Debian GNU/Linux 12 (bookworm)"
    assert facts.cpus >= 1
    assert facts.kernel == os.uname().release


@pytest.mark.parametrize(
    ("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("mips", "mips")]
)
def test_architectures_are_spelled_as_in_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, architecture: str
) -> None:
    names = os.uname_result(("Linux", "host", "6.1", "#1", machine))
    monkeypatch.setattr(os, "uname", lambda: names)
    facts = device_facts("0.1", tmp_path)
    assert facts.architecture == architecture
    assert facts.os == "linux"
    assert facts.memory_bytes == 0


def test_addresses_are_split_into_host_and_port() -> None:
    assert parse_address("controller.example:7443") == ("controller.example", 7443)
    assert parse_address("[2001:db8::1]:7443") == ("2001:db8::1", 7443)


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "host:-1", "host:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        parse_address(text)


def test_the_own_address_is_the_one_that_faces_the_controller() -> None:
    assert local_address_towards("127.0.0.1:7443") == "127.0.0.1"


def test_backoff_grows_to_its_cap_and_starts_over_when_reset() -> None:
    backoff = Backoff(first=1, cap=8)
    first = max(_delay(Backoff(1, 8), 0) for _ in range(200))
    third = max(_delay(Backoff(1, 8), 2) for _ in range(200))
    tenth = max(_delay(Backoff(1, 8), 9) for _ in range(200))
    assert 0.1 <= first <= 1 < third <= 4 < tenth <= 8
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1


def _delay(backoff: Backoff, after: int) -> float:
    for _ in range(after):
        backoff.next()
    return backoff.next()


def test_a_durable_write_leaves_no_temporary_file_and_never_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"a" * 100_000, 0o600)
    stop = threading.Event()
    sizes: set[int] = set()

    def read() -> None:
        while not stop.is_set():
            sizes.add(len(path.read_bytes()))

    reader = threading.Thread(target=read)
    reader.start()
    for size in (50_000, 100_000) * 20:
        write_durably(path, b"b" * size, 0o600)
    stop.set()
    reader.join()
    assert sizes <= {50_000, 100_000}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
