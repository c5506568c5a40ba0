"""A large upload whose controller is killed goes on where it was: the real client against a real controller."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.builds.partials import NOTE, SYNC_EVERY
from longshore.sources import Source, collect
from longshore.uploads import PIECE, UploadProgress
from longshore.v1 import build_pb2
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.waiting import eventually

MIB, GIB = 2**20, 2**30
# Besides what the file takes.
SPARE = 2 * GIB
PATIENCE = 300.0


@dataclass
class Transfer:
    """Lets pieces pass until `cut` bytes were handed to the connection, and on only when `open` is set."""

    cut: int
    passed: int = 0
    after: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    def __call__(self, progress: UploadProgress) -> None:
        if self.open.is_set():
            self.after += PIECE
            return
        self.passed += PIECE
        if self.passed >= self.cut:
            self.reached.set()
            assert self.open.wait(PATIENCE)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[SyncStack]:
    with running_stack(tmp_path / "controller") as running:
        yield running
    # Nothing of this size is left for pytest to keep.
    shutil.rmtree(tmp_path / "controller")


@pytest.mark.parametrize(
    ("size", "cut"),
    [
        pytest.param(128 * MIB, 112 * MIB, id="128MiB"),
        pytest.param(10 * GIB, 9 * GIB, id="10GiB", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_an_upload_whose_controller_is_killed_goes_on_where_it_was(
    stack: SyncStack, tmp_path: Path, size: int, cut: int
) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert free > size + SPARE, f"{free} bytes are free, the upload takes {size}"
    (source,) = sparse_file(tmp_path / "model.bin", size)
    transfer, folder = Transfer(cut), stack.stack.folder.root / "uploads"
    memory = peak_memory(stack)
    with stack.client(patience=PATIENCE) as client, ThreadPoolExecutor(1) as background:
        with releasing(transfer):
            uploading = background.submit(client.upload, [source], transfer)
            assert transfer.reached.wait(PATIENCE)
            # All that the client sent has arrived: so much, and no more, is there when the kill comes.
            eventually(lambda: partial(folder).stat().st_size == transfer.passed, seconds=PATIENCE)
            assert peak_memory(stack) - memory < 100 * MIB
            stack.crash_controller()
            assert cut <= partial(folder).stat().st_size == transfer.passed < size
            assert transfer.passed - durable(folder) <= SYNC_EVERY + PIECE
            stack.start_controller()
        (entry,) = uploading.result(PATIENCE * 4)
        request = build_pb2.StatUploadsRequest(digests=[entry.digest])
        (state,) = client._call(client._builds.StatUploads, request, build_pb2.StatUploadsResponse).uploads
    assert (state.complete, state.held_bytes) == (True, size)
    # What was there was not sent again; a piece of the broken connection may count too.
    assert transfer.after <= size - transfer.passed + 2 * PIECE
    assert list((folder / "partial").iterdir()) == []
    assert peak_memory(stack) - memory < 100 * MIB


def sparse_file(path: Path, size: int) -> list[Source]:
    """As the client finds it; it takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return collect(path.parent, [path.name])


@contextlib.contextmanager
def releasing(transfer: Transfer) -> Iterator[None]:
    """The client goes on afterwards, whatever happened."""
    try:
        yield
    finally:
        transfer.open.set()


def partial(folder: Path) -> Path:
    """The file of the only unfinished content."""
    (found,) = (path for path in (folder / "partial").iterdir() if not path.name.endswith(NOTE))
    return found


def durable(folder: Path) -> int:
    """How much of it a power cut would leave."""
    path = partial(folder)
    return int(path.with_name(path.name + NOTE).read_text().split()[1])


def peak_memory(stack: SyncStack) -> int:
    """Bytes that the controller has used at most so far."""
    status = Path(f"/proc/{stack.stack.controller.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
