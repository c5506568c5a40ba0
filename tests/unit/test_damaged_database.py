"""Which words of Podman tell that its database is damaged."""

import pytest

from edge_agent.podman.storage.database import told_of

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
