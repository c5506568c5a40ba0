"""Which words of Podman tell that its database is damaged, and when it is replaced."""

import json
from pathlib import Path

import pytest

from edge_agent.podman.storage import database
from edge_agent.podman.storage.database import set_aside, told_of
from edge_agent.podman.storage.store import Store
from edge_agent.podman.storage.surgery import Untouchable

DAMAGED = (
    "Error: opening database /var/lib/containers/storage/libpod/bolt_state.db: invalid database",
    "panic: invalid freelist page: 282584257676671, page type is unknown<00>\n\ngo.etcd.io/bbolt.",
    "Error: opening database /var/lib/containers/storage/libpod/bolt_state.db: checksum error",
    "unexpected fault address 0x7f5562\nfatal error: fault\ngo.etcd.io/bbolt.(*freelist).read",
    "Error: beginning transaction: database disk image is malformed",
    "Error: file is not a database",
)
SOUND = (
    "",
    "Error: opening database /var/lib/containers/storage/libpod/bolt_state.db: timeout",
    "Error: opening database /var/lib/containers/storage/libpod/bolt_state.db: permission denied",
    "Error: decoding configuration containers.conf: toml: line 3: malformed table",
    "Error: no space left on device",
)


@pytest.mark.parametrize("said", DAMAGED)
def test_a_damaged_database_is_known_by_what_podman_says(said: str) -> None:
    assert told_of(said)


@pytest.mark.parametrize("said", SOUND)
def test_a_database_that_is_held_or_cannot_be_read_is_not_damaged(said: str) -> None:
    assert not told_of(said)


@pytest.mark.parametrize("where", ["cgroup", "cmdline", "mountinfo"])
def test_a_database_is_not_replaced_while_a_process_of_a_container_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Without root under control groups v1 there is no group of the container's own."""
    monkeypatch.setattr(database, "PROC", tmp_path / "proc")
    process, store, own = tmp_path / "proc/77", Store(tmp_path / "store"), "ab" * 32
    process.mkdir(parents=True)
    for path in (store.index("containers"), store.root / "libpod/bolt_state.db"):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps([{"id": own, "names": ["mine"], "layer": "l"}]))
    (process / where).write_text(f"before/{own}/after")
    with pytest.raises(Untouchable, match="which runs"):
        set_aside(store, {own})
    assert (store.root / "libpod/bolt_state.db").exists()
    (process / where).unlink()
    set_aside(store, {own})
    assert [path.name for path in (store.root / "libpod").iterdir()] == ["bolt_state.db.damaged"]
