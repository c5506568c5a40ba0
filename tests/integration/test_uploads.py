"""What is uploaded is durable, whole and checked, whatever interrupts it."""

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from controller.builds import partials
from controller.builds.uploads import UploadStore
from controller.errors import DataLoss, DomainError, InvalidRequest, NotFound, OutOfRange, ResourceExhausted
from longshore.errors import Reason

# The same in every process that collects these tests.
CONTENT = random.Random(1).randbytes(300_000)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


DIGEST = digest_of(CONTENT)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]
        await asyncio.sleep(0)


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path, min_free_bytes=0)


async def test_a_whole_upload_is_complete_and_readable(store: UploadStore) -> None:
    assert await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT)) == (True, len(CONTENT))
    assert store.stat(DIGEST) == (True, len(CONTENT))
    assert store.path(DIGEST).read_bytes() == CONTENT


async def test_the_same_content_always_looks_the_same_to_a_build(store: UploadStore) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))
    status = store.path(DIGEST).stat()
    assert (status.st_mtime, stat.S_IMODE(status.st_mode)) == (0, 0o644)


async def test_an_empty_file_can_be_uploaded(store: UploadStore) -> None:
    assert await store.write(digest_of(b""), 0, 0, pieces(b"")) == (True, 0)


async def test_a_complete_upload_is_answered_at_once(store: UploadStore) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))

    unread = pieces(CONTENT)
    assert (await store.write(DIGEST, len(CONTENT), 0, unread)).complete
    assert await anext(unread) == CONTENT[:65_536]


async def test_a_broken_upload_goes_on_where_it_ended_also_after_a_restart(store: UploadStore, tmp_path: Path) -> None:
    state = await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT[:100_001]))
    assert state == (False, 100_001)
    with pytest.raises(NotFound):
        store.path(DIGEST)
    restarted = UploadStore(tmp_path, min_free_bytes=0)
    assert restarted.stat(DIGEST) == (False, 100_001)
    assert (await restarted.write(DIGEST, len(CONTENT), 100_001, pieces(CONTENT[100_001:]))).complete
    assert restarted.path(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("offset", [0, 99, 101, 300_000])
async def test_an_offset_that_is_not_what_is_held_is_refused(store: UploadStore, offset: int) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT[:100]))
    with pytest.raises(OutOfRange) as caught:
        await store.write(DIGEST, len(CONTENT), offset, pieces(CONTENT[offset:]))
    assert caught.value.reason == Reason.UPLOAD_OFFSET
    assert caught.value.metadata["held_bytes"] == "100"


async def test_a_wrong_content_is_dropped_and_can_be_sent_again(store: UploadStore, tmp_path: Path) -> None:
    wrong = b"x" + CONTENT[1:]
    with pytest.raises(DataLoss) as caught:
        await store.write(DIGEST, len(CONTENT), 0, pieces(wrong))
    assert caught.value.reason == Reason.UPLOAD_CORRUPT
    assert store.stat(DIGEST) == (False, 0)
    assert list((tmp_path / "partial").iterdir()) == []
    assert (await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))).complete


async def test_more_than_announced_is_refused(store: UploadStore) -> None:
    with pytest.raises(InvalidRequest):
        await store.write(DIGEST, 100, 0, pieces(CONTENT))


@pytest.mark.parametrize("digest", ["", "sha256:", DIGEST.upper(), DIGEST + "\n", "sha256:../../etc/passwd", "md5:00"])
async def test_a_malformed_digest_is_refused(store: UploadStore, digest: str) -> None:
    for attempt in (store.stat, store.path):
        with pytest.raises(InvalidRequest):
            attempt(digest)
    with pytest.raises(InvalidRequest):
        await store.write(digest, 1, 0, pieces(b"x"))


async def test_too_large_and_a_full_disk_are_told_apart(tmp_path: Path) -> None:
    small = UploadStore(tmp_path, min_free_bytes=0, max_bytes=10)
    with pytest.raises(ResourceExhausted) as caught:
        await small.write(DIGEST, 11, 0, pieces(CONTENT))
    assert caught.value.reason == Reason.TOO_LARGE
    full = UploadStore(tmp_path, min_free_bytes=2**62)
    with pytest.raises(ResourceExhausted) as caught:
        await full.write(DIGEST, 11, 0, pieces(CONTENT))
    assert caught.value.reason == Reason.DISK_FULL


async def test_two_writers_of_one_content_at_once_both_end_well(store: UploadStore) -> None:
    sizes: Sequence[int] = (65_536, 10_007)
    results = await asyncio.gather(*(store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT, size)) for size in sizes),
                                   return_exceptions=True)  # fmt: skip
    assert any(result == (True, len(CONTENT)) for result in results)
    # Whoever came too late was told where to go on, and nothing else.
    late = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, OutOfRange) for error in late)
    assert store.path(DIGEST).read_bytes() == CONTENT


async def test_a_writer_that_went_silent_does_not_stop_the_next_one(store: UploadStore) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        begun.set()
        await released.wait()
        yield CONTENT[1000:2000]

    silent = asyncio.create_task(store.write(DIGEST, len(CONTENT), 0, stuck()))
    await asyncio.wait_for(begun.wait(), 10)
    held = store.stat(DIGEST).held_bytes
    assert (await store.write(DIGEST, len(CONTENT), held, pieces(CONTENT[held:]))).complete
    released.set()
    assert (await asyncio.wait_for(silent, 10)).complete


async def test_two_writers_of_different_contents_under_one_digest_do_not_mix(store: UploadStore) -> None:
    """One of them lies: the content is right in the end, or not there."""
    honest = store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))
    liar = store.write(DIGEST, len(CONTENT), 0, pieces(bytes(len(CONTENT))))
    results = await asyncio.gather(honest, liar, return_exceptions=True)
    assert all(isinstance(result, tuple | DomainError) for result in results)
    if store.stat(DIGEST).complete:
        assert store.path(DIGEST).read_bytes() == CONTENT


WRITER = """
import asyncio, sys
from pathlib import Path
from controller.builds.uploads import UploadStore

async def chunks():
    while piece := sys.stdin.buffer.read(4096):
        yield piece
        print(len(piece), flush=True)

store = UploadStore(Path(sys.argv[1]), min_free_bytes=0)
asyncio.run(store.write(sys.argv[2], int(sys.argv[3]), store.stat(sys.argv[2]).held_bytes, chunks()))
"""


def write_and_kill(folder: Path, piece: int) -> None:
    """Another process takes a part of the content and is killed somewhere in it."""
    held = UploadStore(folder, min_free_bytes=0).stat(DIGEST).held_bytes
    argv = [sys.executable, "-c", WRITER, str(folder), DIGEST, str(len(CONTENT))]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(CONTENT[held : held + piece])
        writer.stdin.flush()
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)


async def test_a_server_killed_at_any_moment_keeps_what_can_be_gone_on_from(tmp_path: Path) -> None:
    for piece in (4096, 40_960, 122_880):
        await asyncio.to_thread(write_and_kill, tmp_path, piece)
    store = UploadStore(tmp_path, min_free_bytes=0)
    state = store.stat(DIGEST)
    assert not state.complete
    assert state.held_bytes > 0
    assert (await store.write(DIGEST, len(CONTENT), state.held_bytes, pieces(CONTENT[state.held_bytes :]))).complete
    assert store.path(DIGEST).read_bytes() == CONTENT


@pytest.mark.podman
async def test_a_disk_that_is_full_in_the_middle_of_a_content_keeps_what_fits_and_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    content = random.Random(2).randbytes(6 * 2**20)
    digest = digest_of(content)
    (small_disk / "other").write_bytes(bytes(5 * 2**20))
    store = UploadStore(small_disk / "uploads", min_free_bytes=0)
    # The disk is looked at before; here it fills afterwards.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UploadStore, "_check_space", lambda *_: None)
        with pytest.raises(ResourceExhausted) as caught:
            await store.write(digest, len(content), 0, pieces(content))
    assert caught.value.reason == Reason.DISK_FULL
    held = store.stat(digest).held_bytes
    assert 2**20 < held < 4 * 2**20
    with pytest.raises(ResourceExhausted):
        await store.write(digest, len(content), held, pieces(content[held:]))
    (small_disk / "other").unlink()
    assert (await store.write(digest, len(content), held, pieces(content[held:]))).complete
    assert store.path(digest).read_bytes() == content


async def test_many_writers_of_one_content_at_once_leave_it_whole(store: UploadStore) -> None:
    async def write() -> None:
        """As a client does: on where the server says, until it is complete."""
        while not (state := store.stat(DIGEST)).complete:
            with contextlib.suppress(OutOfRange):
                await store.write(DIGEST, len(CONTENT), state.held_bytes, pieces(CONTENT[state.held_bytes :], 20_011))

    async with asyncio.timeout(60):
        await asyncio.gather(*(write() for _ in range(20)))
    assert store.path(DIGEST).read_bytes() == CONTENT


async def broken(content: bytes) -> AsyncIterator[bytes]:
    """A stream that ends with its connection."""
    async for piece in pieces(content):
        yield piece
    raise ConnectionResetError


async def broken_upload(store: UploadStore, content: bytes) -> None:
    with pytest.raises(ConnectionResetError):
        await store.write(DIGEST, len(CONTENT), 0, broken(content))


@pytest.fixture
def next_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it makes this another boot of the machine."""
    file = tmp_path / "boot-id"

    def begin() -> None:
        file.write_text(f"boot-{random.random()}\n")
        monkeypatch.setattr(partials, "BOOT_ID", file)

    return begin


def spoil(folder: Path, begin: int) -> None:
    """As a power cut does where a file system kept the length and not the bytes."""
    (path,) = [each for each in (folder / "partial").iterdir() if not each.name.endswith(partials.NOTE)]
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(path.stat().st_size - begin))


SYNC_EVERY = 100_000
# The content comes in pieces of 64 KiB: after the second one it is brought to the disk.
DURABLE = 131_072


async def test_after_a_power_cut_an_upload_goes_on_where_it_was_on_the_disk_for_sure(
    tmp_path: Path, next_boot: Callable[[], None]
) -> None:
    await broken_upload(UploadStore(tmp_path, 0, sync_every=SYNC_EVERY), CONTENT[:200_001])
    spoil(tmp_path, DURABLE)
    next_boot()
    store = UploadStore(tmp_path, 0, sync_every=SYNC_EVERY)
    assert store.stat(DIGEST) == (False, DURABLE)
    with pytest.raises(OutOfRange):
        await store.write(DIGEST, len(CONTENT), 200_001, pieces(CONTENT[200_001:]))
    assert (await store.write(DIGEST, len(CONTENT), DURABLE, pieces(CONTENT[DURABLE:]))).complete
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert list((tmp_path / "partial").iterdir()) == []


async def test_two_power_cuts_in_a_row_take_no_more_than_one(tmp_path: Path, next_boot: Callable[[], None]) -> None:
    await broken_upload(UploadStore(tmp_path, 0, sync_every=SYNC_EVERY), CONTENT[:200_001])
    for _ in range(2):
        next_boot()
        store = UploadStore(tmp_path, 0, sync_every=SYNC_EVERY)
        with pytest.raises(ConnectionResetError):
            await store.write(DIGEST, len(CONTENT), DURABLE, broken(CONTENT[DURABLE : DURABLE + 1000]))
        assert store.stat(DIGEST) == (False, DURABLE + 1000)
        spoil(tmp_path, DURABLE)
    next_boot()
    assert (await store.write(DIGEST, len(CONTENT), DURABLE, pieces(CONTENT[DURABLE:]))).complete


async def test_a_server_that_was_killed_in_the_same_boot_lost_nothing(tmp_path: Path) -> None:
    await broken_upload(UploadStore(tmp_path, 0, sync_every=SYNC_EVERY), CONTENT[:200_001])
    assert UploadStore(tmp_path, 0).stat(DIGEST) == (False, 200_001)


async def test_what_a_writer_was_told_to_be_held_outlives_a_power_cut(
    tmp_path: Path, next_boot: Callable[[], None]
) -> None:
    assert await UploadStore(tmp_path, 0).write(DIGEST, len(CONTENT), 0, pieces(CONTENT[:1000])) == (False, 1000)
    next_boot()
    assert UploadStore(tmp_path, 0).stat(DIGEST) == (False, 1000)


async def test_an_upload_of_which_nothing_was_noted_begins_anew(tmp_path: Path, next_boot: Callable[[], None]) -> None:
    await broken_upload(UploadStore(tmp_path, 0), CONTENT[:1000])
    next_boot()
    for note in (tmp_path / "partial").glob(f"*{partials.NOTE}"):
        note.write_text("")
    store = UploadStore(tmp_path, 0)
    assert store.stat(DIGEST) == (False, 0)
    assert (await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))).complete


async def test_what_a_power_cut_spoilt_is_not_trusted_after_the_next_kill(
    tmp_path: Path, next_boot: Callable[[], None]
) -> None:
    """Nothing of it was on the disk for sure, and the server is killed again before anything more is sent."""
    await broken_upload(UploadStore(tmp_path, 0), CONTENT[:1000])
    (note,) = (tmp_path / "partial").glob(f"*{partials.NOTE}")
    file = note.with_name(note.name.removesuffix(partials.NOTE))
    note.write_text(f"{partials.BOOT_ID.read_text().strip()} 0\n")
    file.write_bytes(b"x" * 5000)
    next_boot()
    partials.Partial(file, DIGEST, SYNC_EVERY).open()
    store = UploadStore(tmp_path, 0)
    assert store.stat(DIGEST) == (False, 0)
    assert (await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))).complete


async def test_a_disk_that_loses_what_it_took_has_it_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real = UploadStore(tmp_path, 0, sync_every=SYNC_EVERY), os.fsync

    def failing(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > DURABLE:
            raise OSError(errno.EIO, "the disk is ill")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="ill"):
        await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT))
    assert store.stat(DIGEST) == (False, DURABLE)
    monkeypatch.setattr(os, "fsync", real)
    assert (await store.write(DIGEST, len(CONTENT), DURABLE, pieces(CONTENT[DURABLE:]))).complete


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_content_is_there_for_those_who_sent_it_and_stored_once(store: UploadStore, tmp_path: Path) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT), "alice")
    assert store.stat(DIGEST, "alice") == store.stat(DIGEST) == (True, len(CONTENT))
    assert store.stat(DIGEST, "bob") == (False, 0)
    # What he has of it is his own, and goes on where his ended.
    assert await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT[:1000]), "bob") == (False, 1000)
    assert store.stat(DIGEST, "bob") == (False, 1000)
    assert (await store.write(DIGEST, len(CONTENT), 1000, pieces(CONTENT[1000:]), "bob")).complete
    assert store.stat(DIGEST, "bob").complete
    assert [path.stat().st_size for path in files_below(tmp_path) if path.stat().st_size] == [len(CONTENT)]


async def test_who_does_not_have_a_content_cannot_make_it_his(store: UploadStore) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT), "alice")
    with pytest.raises(DataLoss):
        await store.write(DIGEST, len(CONTENT), 0, pieces(bytes(len(CONTENT))), "bob")
    with pytest.raises(OutOfRange):
        await store.write(DIGEST, len(CONTENT), len(CONTENT), pieces(b""), "bob")
    assert store.stat(DIGEST, "bob") == (False, 0)
    assert store.path(DIGEST).read_bytes() == CONTENT


async def test_a_content_that_was_removed_is_nobodys(store: UploadStore, tmp_path: Path) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT), "alice")
    (content,) = store.contents()
    assert store.remove(DIGEST, content.last_used)
    assert files_below(tmp_path) == []
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT), "bob")
    assert (store.stat(DIGEST, "alice").complete, store.stat(DIGEST, "bob").complete) == (False, True)


async def test_unfinished_contents_are_removed_by_age_with_all_that_is_noted_of_them(
    store: UploadStore, tmp_path: Path
) -> None:
    await store.write(DIGEST, len(CONTENT), 0, pieces(CONTENT[:1000]))
    store.remove_partial(time.time() - 3600)
    assert store.stat(DIGEST).held_bytes == 1000
    store.remove_partial(time.time() + 3600)
    assert list((tmp_path / "partial").iterdir()) == []
