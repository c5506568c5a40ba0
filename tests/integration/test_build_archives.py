"""Requests for builds whose files come as one archive, and such requests again."""

import asyncio
import hashlib
import io
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.builds import expansions
from controller.builds.archives import expand
from controller.builds.expansions import Expansions
from controller.builds.service import BuildRequest
from controller.builds.uploads import UploadStore
from controller.deployments.service import DeploymentService, Request
from controller.errors import InvalidRequest
from tests.support.building import one_chunk
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import PROJECT

SPEC = b"""\
version: 1
name: digits
build: {files: [model]}
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: x86-cpu}]
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, ScriptedBuilder()) as opened:
        yield opened


@pytest.fixture
def uploads(bench: Bench) -> UploadStore:
    return UploadStore(bench.folder / "uploads", min_free_bytes=0)


async def uploaded_archive(uploads: UploadStore) -> str:
    """Digest of an archive with one file, model/a.onnx."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        entry = tarfile.TarInfo("model/a.onnx")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"model"))
    content = held.getvalue()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    await uploads.write(digest, len(content), 0, one_chunk(content), PROJECT.user_id)
    return digest


def forget_all(uploads: UploadStore) -> None:
    """As housekeeping does with what nobody needs."""
    for content in list(uploads.contents()):
        assert uploads.remove(content.digest, content.last_used)


class SlowExpansion:
    """Unpacking that waits for `go`; `count`: how often it was begun."""

    def __init__(self) -> None:
        self.begun, self.go, self.count = threading.Event(), threading.Event(), 0

    def __call__(self, digest: str, uploads: UploadStore) -> Any:
        self.count += 1
        self.begun.set()
        assert self.go.wait(30)
        return expand(digest, uploads)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowExpansion:
    made = SlowExpansion()
    monkeypatch.setattr(expansions, "expand", made)
    return made


async def test_a_repeated_request_finds_its_build_also_when_its_contents_are_gone(
    bench: Bench, uploads: UploadStore
) -> None:
    service = bench.service(uploads)
    wanted = BuildRequest(PROJECT, SPEC, archive=await uploaded_archive(uploads), request_id="r-1")
    made = await service.create(wanted)
    forget_all(uploads)
    assert (await bench.service(uploads).create(wanted)).id == made.id


async def test_a_repeated_deployment_is_found_also_when_its_contents_are_gone(
    bench: Bench, uploads: UploadStore
) -> None:
    builds = bench.service(uploads)
    files = await Expansions(uploads).files(await uploaded_archive(uploads))
    deployments = DeploymentService(bench.store, builds, bench.secrets)
    wanted = Request(PROJECT, SPEC, files, request_id="r-1", knows_all=True)
    made = await deployments.apply(wanted)
    forget_all(uploads)
    assert (await deployments.apply(wanted)).deployment.id == made.deployment.id


async def test_who_gave_up_waiting_for_an_archive_finds_it_unpacked(
    bench: Bench, uploads: UploadStore, slow: SlowExpansion
) -> None:
    service = bench.service(uploads)
    wanted = BuildRequest(PROJECT, SPEC, archive=await uploaded_archive(uploads), request_id="r-1")
    first = asyncio.create_task(service.create(wanted))
    assert await asyncio.to_thread(slow.begun.wait, 30)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = asyncio.create_task(service.create(wanted))
    slow.go.set()
    made = await again
    assert [file.path for file in made.files] == ["model/a.onnx"]
    await service.create(BuildRequest(PROJECT, SPEC, archive=wanted.archive))
    assert slow.count == 1


async def test_what_was_unpacked_and_removed_is_unpacked_again(uploads: UploadStore) -> None:
    unpacked, digest = Expansions(uploads), await uploaded_archive(uploads)
    (file,) = await unpacked.files(digest)
    forget_all(uploads)
    await uploaded_archive(uploads)
    assert not uploads.stat(file.digest).complete
    assert await unpacked.files(digest) == (file,)
    assert uploads.stat(file.digest).complete


async def test_an_archive_that_is_none_is_refused_each_time(uploads: UploadStore) -> None:
    unpacked, content = Expansions(uploads), b"no archive at all"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    await uploads.write(digest, len(content), 0, one_chunk(content))
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await unpacked.files(digest)


async def test_many_archives_hold_no_other_work_up(uploads: UploadStore, slow: SlowExpansion) -> None:
    unpacked = Expansions(uploads)
    waiting = [asyncio.create_task(unpacked.files(f"sha256:{number:064x}")) for number in range(100)]
    try:
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(slow.begun.wait, 20)
    finally:
        slow.go.set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error).__name__ for error in ended} == {"FailedPrecondition"}
