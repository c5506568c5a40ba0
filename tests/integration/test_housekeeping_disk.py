"""What housekeeping does with folders of this machine: the builder's storage, uploads, and the report of it."""

import asyncio
import contextlib
import io
import os
import shutil
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller import admin
from controller.builds import recovery, uploads
from controller.builds.base_uses import BaseUses
from controller.builds.podman import Podman
from controller.builds.uploads import UploadStore
from controller.events.model import NO_PROJECT, EventKind, NewEvent
from controller.housekeeping import sizes
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import DAY, BuildRecord, Policy
from controller.housekeeping.sizes import size_below
from controller.settings import Broker, Endpoint, Housekeeping, Registry, Settings
from controller.setup import DataFolder, set_up
from controller.store import Transaction, open_store
from tests.support.layers import import_image, keep_layers, kept
from tests.support.rows import PROJECT
from tests.support.waiting import eventually

NOW = time.time()


def record(build_id: str, days: float) -> BuildRecord:
    return BuildRecord(build_id, "alice", "vision", "digits", NOW - days * DAY if days >= 0 else 0.0, True)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    podman = Podman(tmp_path / "builder")
    podman.prepare()
    yield podman
    recovery.close(podman)


async def keep_base(podman: Podman, name: str, days: float, *names: str) -> None:
    """An image of 1 MB on which a build stood last so many days ago."""
    image_id = await import_image(podman, name, *names)
    BaseUses(podman.folder).note(image_id)
    os.utime(podman.folder / "used" / image_id, (NOW - days * DAY, NOW - days * DAY))


@pytest.mark.podman
async def test_old_layers_go_then_the_oldest_until_there_is_room_and_none_while_a_build_runs(podman: Podman) -> None:
    builds = [record("b-old", 40), record("b-1", 3), record("b-2", 2), record("b-running", -1)]
    for build_id in ("b-old", "b-1", "b-2", "b-running", "b-unknown"):
        await keep_layers(podman, build_id)
    busy = LayerCache(podman, lambda: True)
    assert await busy.tidy(builds, Policy(cache_bytes=0), NOW) == 0
    cache = LayerCache(podman, lambda: False)
    assert await cache.unneeded(builds, Policy(), NOW) == [
        f"localhost/longshore/build/x86-cpu:{build_id}" for build_id in ("b-old", "b-unknown")
    ]
    assert await cache.tidy(builds, Policy(), NOW) == 2
    assert await kept(podman) == ["b-1", "b-2", "b-running"]
    room = size_below(podman.storage) - 2**19
    assert await cache.tidy(builds, Policy(cache_bytes=room), NOW) == 1
    assert await kept(podman) == ["b-2", "b-running"]
    await cache.tidy(builds, Policy(cache_bytes=0), NOW)
    assert await kept(podman) == ["b-running"]


@pytest.mark.podman
async def test_bases_that_were_not_used_for_long_go_and_then_the_oldest_use_first(
    podman: Podman, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep_base(podman, "old", 40, "docker.io/me/base:old")
    await keep_base(podman, "replaced", 40)
    await keep_base(podman, "seldom", 5, "docker.io/me/base:seldom")
    await keep_base(podman, "often", 1, "docker.io/me/base:often")
    await import_image(podman, "unnoted", "docker.io/me/base:unnoted")
    await keep_layers(podman, "b-1")
    (podman.cache / "wheels").mkdir()
    (podman.cache / "wheels" / "a.whl").write_bytes(bytes(2**20))
    cache, builds = LayerCache(podman, lambda: False), [record("b-1", 3)]
    assert len(await cache.unneeded(builds, Policy(), NOW)) == 2
    assert await cache.tidy(builds, Policy(), NOW) == 2
    assert await kept(podman) == ["b-1", "often", "seldom", "unnoted"]
    assert len(list((podman.folder / "used").iterdir())) == 5
    looked: list[Path] = []

    def looking(folder: Path, apart: Collection[Path] = frozenset()) -> int:
        looked.append(folder)
        return size_below(folder, apart)

    monkeypatch.setattr(sizes, "size_below", looking)
    room = size_below(podman.storage) + 2**20 - 2**19 - 2**20
    assert await cache.tidy(builds, Policy(cache_bytes=room), NOW) == 2
    assert await kept(podman) == ["often", "unnoted"]
    assert [path.name for path in podman.cache.iterdir()] == ["wheels"]
    # However many images go, the storage is looked at once.
    assert looked.count(podman.storage) == 1


@pytest.mark.podman
async def test_no_package_cache_goes_while_something_else_fills_the_disk(podman: Podman) -> None:
    await keep_layers(podman, "b-running")
    (podman.cache / "wheels").mkdir()
    (podman.cache / "wheels" / "a.whl").write_bytes(b"wheel")
    await LayerCache(podman, lambda: False).tidy([record("b-running", -1)], Policy(cache_bytes=2**19), NOW)
    assert [path.name for path in podman.cache.iterdir()] == ["wheels"]


async def test_a_package_cache_is_gone_at_once_however_long_removing_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman = Podman(tmp_path / "builder")
    (podman.cache / "uv").mkdir(parents=True)
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_: None)
        await LayerCache(podman, lambda: False).tidy([], Policy(cache_days=-1), NOW)
        assert [path.name.startswith(".gone-") for path in podman.cache.iterdir()] == [True]
    await LayerCache(podman, lambda: False).tidy([], Policy(), NOW)
    assert list(podman.cache.iterdir()) == []


async def test_package_caches_go_as_a_whole_when_they_were_not_used_for_long(tmp_path: Path) -> None:
    podman = Podman(tmp_path / "builder")
    for name, days in (("old", 40), ("young", 1)):
        folder = podman.cache / name / "wheels"
        folder.mkdir(parents=True)
        (folder / "a.whl").write_bytes(b"wheel")
        for path in (folder / "a.whl", folder, folder.parent):
            os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    (podman.cache / "old" / "wheels" / "half.whl").write_bytes(b"")
    os.utime(podman.cache / "old" / "wheels" / "half.whl", (0, 0))
    await LayerCache(podman, lambda: True).tidy([], Policy(), NOW)
    assert sorted(path.name for path in podman.cache.iterdir()) == ["old", "young"]
    await LayerCache(podman, lambda: False).tidy([], Policy(), NOW)
    assert [path.name for path in podman.cache.iterdir()] == ["young"]
    await LayerCache(podman, lambda: False).tidy([], Policy(cache_bytes=0), NOW)
    assert list(podman.cache.iterdir()) == []


def put(store: UploadStore, content: bytes) -> str:
    with store.intake() as intake:
        digest, _ = intake.add(io.BytesIO(content).read)
        intake.commit()
    return digest


def test_a_content_that_somebody_asked_for_meanwhile_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "USE_NOTED_EVERY", 0.0)
    store = UploadStore(tmp_path, 0)
    digest = put(store, b"content")
    (found,) = store.contents()
    assert (found.digest, found.size) == (digest, 7)

    def noted_since() -> bool:
        """The clock of a disk stands still for some milliseconds."""
        assert store.stat(digest).complete
        assert store.path(digest).stat().st_mtime == 0
        return next(iter(store.contents())).last_used > found.last_used

    eventually(noted_since)
    assert not store.remove(digest, found.last_used)
    (found,) = store.contents()
    assert store.remove(digest, found.last_used)
    assert not store.stat(digest).complete


async def test_unfinished_contents_and_what_a_kill_left_of_an_archive_go_by_age(tmp_path: Path) -> None:
    store = UploadStore(tmp_path, 0)
    for name in ("a" * 64, "b" * 64):
        (tmp_path / "partial" / name).write_bytes(b"half")
    left = tmp_path / "partial" / ".intake-x"
    left.mkdir()
    for path in (left, tmp_path / "partial" / ("a" * 64)):
        os.utime(path, (NOW - 9 * DAY, NOW - 9 * DAY))
    await asyncio.to_thread(store.remove_partial, NOW - 7 * DAY)
    assert [path.name for path in (tmp_path / "partial").iterdir()] == ["b" * 64]


def test_an_operator_sees_what_would_go_and_nothing_goes(tmp_path: Path) -> None:
    here = Endpoint(listen="127.0.0.1:1", address="127.0.0.1:1")
    settings = Settings(
        public=here, agents=here, web=here, broker=Broker(address="127.0.0.1:1"), registry=Registry(address="a:1"),
        housekeeping=Housekeeping(uploads_days=0, events_days=0, events_keep_last=1),
    )  # fmt: skip
    set_up(tmp_path / "data", settings)
    digest = put(UploadStore(tmp_path / "data" / "uploads", 0), b"unneeded")
    with contextlib.closing(open_store(DataFolder(tmp_path / "data").database)) as store:
        for project in (PROJECT, PROJECT, PROJECT, NO_PROJECT, NO_PROJECT):
            append = partial(_append, event=NewEvent(project, EventKind.BUILD, "QUEUED"))
            asyncio.run(store.transact(append))
    for _ in range(2):
        shown = CliRunner().invoke(admin.app, ["housekeeping", "--dry-run", "--data-dir", str(tmp_path / "data")])
        assert shown.exit_code == 0, shown.output
        assert f"upload {digest} (8 bytes)" in shown.output
        assert "2 events of alice/digits\n" in shown.output
        assert "1 events of devices\n" in shown.output
        assert "3 things would be removed" in shown.output


def _append(tx: Transaction, event: NewEvent) -> None:
    tx.events.append(event)
