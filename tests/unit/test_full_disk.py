"""A full disk, wherever it shows: the build waits for room and is tried again."""

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.builds.builder import ImageBuilder
from controller.builds.bundles.builder import BundleBuilder
from controller.builds.image_build import ImageBuild
from controller.builds.model import BuildFailed, BuildState, RegistryAccess, TargetJob
from controller.builds.uploads import UploadStore
from controller.spec.model import BuildSpec
from tests.support.queueing import ScriptedBuilder, open_bench

NOWHERE = RegistryAccess("127.0.0.1:1", None, lambda: ("", ""))
JOB = TargetJob("b1", "alice", "vision", "digits", "x86-cpu", BuildSpec(), "127.0.0.1:1/alice/digits")


def full(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number), "/x")


async def failure_of(build: Callable[..., Awaitable[Any]]) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await build(JOB, lambda *_: None, lambda _: None)
    return caught.value


@pytest.fixture
async def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageBuilder:
    """Its Podman works."""

    async def able(self: ImageBuilder) -> str:
        self.podman.prepare()
        return ""

    monkeypatch.setattr(ImageBuilder, "probe", able)
    return ImageBuilder(tmp_path / "builder", UploadStore(tmp_path / "uploads"), NOWHERE)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_no_room_while_an_image_is_built_is_worth_another_try(
    builder: ImageBuilder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def run(*_: object) -> None:
        raise full(number)

    monkeypatch.setattr(ImageBuild, "run", run)
    failure = await failure_of(builder.build)
    assert (failure.reason, failure.retryable) == ("DiskFull", True)
    assert list(builder.podman.temporary.iterdir()) == []


async def test_no_room_for_a_builds_own_folder_is_worth_another_try(
    builder: ImageBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdtemp(**_: object) -> str:
        raise full()

    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)
    bundles = BundleBuilder(tmp_path / "bundles", UploadStore(tmp_path / "uploads"), NOWHERE)
    for build in (builder.build, bundles.build):
        failure = await failure_of(build)
        assert (failure.reason, failure.retryable) == ("DiskFull", True)


async def test_what_is_wrong_with_a_disk_otherwise_is_no_full_disk(
    builder: ImageBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> None:
        raise full(errno.EIO)

    monkeypatch.setattr(ImageBuild, "run", run)
    with pytest.raises(OSError, match="Input/output error"):
        await builder.build(JOB, lambda *_: None, lambda _: None)


async def test_a_built_target_whose_bill_of_materials_finds_no_room_succeeds_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.builds.turns.RETRY_FIRST", 0.01)
    builder = ScriptedBuilder()
    builder.gate.set()
    crowded = [full(), full()]

    def save(*_: object) -> None:
        if crowded:
            raise crowded.pop()

    monkeypatch.setattr("controller.builds.materials_store.MaterialsStore.save", save)
    async with open_bench(tmp_path, builder) as bench, bench.working():
        build_id = await bench.add(1)
        ended = await bench.comes_to(lambda build: build.ended > 0, build_id)
    assert (ended.state, ended.targets[0].attempts) == (BuildState.SUCCEEDED, 3)
