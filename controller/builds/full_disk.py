"""A full disk is no accident of the controller: builds wait for room, and are tried again."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from controller.builds.model import BuildFailed

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def waiting_for_room(work: str) -> Iterator[None]:
    """What the system says of a full disk in the block is BuildFailed DiskFull. `work` follows on "cannot"."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise BuildFailed("DiskFull", f"cannot {work}: {error}; free space", retryable=True) from error
