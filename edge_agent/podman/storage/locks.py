"""Holding the store's own locks, so that no Podman changes or reads it meanwhile.

As github.com/containers/storage does it: record locks (fcntl) over files of which the content changes with each change
of the index, so that other processes read that again.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator

from edge_agent.podman.storage.store import INDEXES, Store

# Podman holds a lock while it unpacks a layer: what is to be mended then waits for another occasion.
WAIT_SECONDS = 60.0
MARK_BYTES = 32


class StoreBusy(Exception):
    """Another program holds the store."""


@contextlib.contextmanager
def held(store: Store) -> Iterator[None]:
    """Within the block this process alone has the indexes. Blocks; raises StoreBusy. In the order in which Podman takes
    them: layers, images, containers."""
    with contextlib.ExitStack() as locks:
        descriptors = [locks.enter_context(_held(store, name)) for name in INDEXES]
        yield
        for descriptor in descriptors:
            os.pwrite(descriptor, secrets.token_hex(MARK_BYTES).encode(), 0)


@contextlib.contextmanager
def _held(store: Store, name: str) -> Iterator[int]:
    path = store.index(name).with_suffix(".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() > deadline:
                raise StoreBusy(f"{path} is held by another program") from error
            time.sleep(0.05)
        else:
            return
