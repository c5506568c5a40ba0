"""A disk that is nearly full: what nothing needs goes, the least lately used first, until builds may begin again."""

import os
import time
from pathlib import Path

import pytest

from controller.builds import recovery
from controller.builds.base_uses import BaseUses
from controller.builds.podman import Podman
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import DAY, BuildRecord, Policy
from controller.housekeeping.space import Space
from tests.support.layers import import_image, keep_layers, kept
from tests.support.small_disk import MIB, small_disk, small_image_disk

pytestmark = pytest.mark.podman
NOW = time.time()


def record(build_id: str, days: float) -> BuildRecord:
    """A build that ended so many days ago; one that has not for days < 0."""
    return BuildRecord(build_id, "alice", "vision", "digits", NOW - days * DAY if days >= 0 else 0.0, True)


async def test_young_layers_and_packages_go_oldest_use_first_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        podman = Podman(disk.path / "builder")
        podman.prepare()
        builds = [record("b-running", -1), record("b-7", 7), record("b-5", 5), record("b-3", 3), record("b-1", 1)]
        for build in builds:
            await keep_layers(podman, build.id)
        for name, days in (("wheels", 6), ("debs", 2)):
            (podman.cache / name).mkdir()
            (podman.cache / name / "fetched").write_bytes(bytes(MIB))
            for path in (podman.cache / name / "fetched", podman.cache / name):
                os.utime(path, (NOW - days * DAY, NOW - days * DAY))
        cache = LayerCache(podman, lambda: False)
        try:
            await cache.tidy(builds, Policy(), NOW)
            assert len(await kept(podman)) == 5
            # So little is free that what was used last 4 days ago and before has to go.
            space = Space({"the builder": podman.folder}, 8 * MIB)
            disk.fill(leave=8 * MIB - 5 * MIB // 2)
            await LayerCache(podman, lambda: True).make_room(builds, space.lacks)
            assert len(await kept(podman)) == 5
            await cache.make_room(builds, space.lacks)
            assert await kept(podman) == ["b-1", "b-3", "b-running"]
            assert [path.name for path in podman.cache.iterdir()] == ["debs"]
            # Nothing goes for a disk on which there is nothing of it.
            await cache.make_room(builds, Space({"the builder": tmp_path}, 2**60).lacks)
            assert await kept(podman) == ["b-1", "b-3", "b-running"]
        finally:
            recovery.close(podman)


async def test_of_a_disk_without_any_room_layers_go_although_podman_needs_some_for_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        podman = Podman(disk.path / "builder")
        podman.prepare()
        builds = [record("b-running", -1), record("b-2", 2), record("b-1", 1)]
        for build in builds:
            await keep_layers(podman, build.id)
        cache = LayerCache(podman, lambda: False)
        try:
            await cache.tidy(builds, Policy(), NOW)
            disk.fill()
            assert await kept(podman) == []
            await cache.make_room(builds, Space({"the builder": podman.folder}, 3 * MIB // 2).lacks)
            assert await kept(podman) == ["b-running"]
        finally:
            recovery.close(podman)


async def test_of_a_disk_without_any_room_packages_go_where_no_layer_can(tmp_path: Path) -> None:
    with small_image_disk(tmp_path / "disk", 64) as disk:
        podman = Podman(disk.path / "builder")
        podman.prepare()
        await keep_layers(podman, "b-running")
        (podman.cache / "wheels").mkdir()
        (podman.cache / "wheels/fetched").write_bytes(bytes(3 * MIB))
        cache = LayerCache(podman, lambda: False)
        try:
            await cache.tidy([record("b-running", -1)], Policy(), NOW)
            disk.fill()
            await cache.make_room([record("b-running", -1)], Space({"the builder": podman.folder}, 2 * MIB).lacks)
            assert await kept(podman) == ["b-running"]
            assert list(podman.cache.iterdir()) == []
        finally:
            recovery.close(podman)


async def test_a_base_goes_together_with_what_stands_on_it(tmp_path: Path) -> None:
    podman = Podman(tmp_path / "builder")
    podman.prepare()
    try:
        base = await import_image(podman, "base", "docker.io/me/base:1")
        (tmp_path / "Containerfile").write_text("FROM docker.io/me/base:1\nLABEL a=b\n")
        done = await podman.run("build", "-q", "-t", "localhost/longshore/build/x86-cpu:b-1", str(tmp_path))
        assert done.returncode == 0, done.stderr
        BaseUses(podman.folder).note(base)
        os.utime(podman.folder / "used" / base, (NOW - 5 * DAY, NOW - 5 * DAY))
        await LayerCache(podman, lambda: False).make_room([record("b-1", 3)], lambda _: True)
        listed = await podman.run("images", "-a", "-q")
        assert listed.stdout.split() == []
    finally:
        recovery.close(podman)
