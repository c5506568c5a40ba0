"""What a request for a build can say, and what becomes of it: the service of builds on a store, with real uploads."""

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState, ContextFile
from controller.builds.service import BuildRequest
from controller.builds.uploads import UploadStore
from controller.deployments.service import DeploymentService, Request
from controller.errors import FailedPrecondition, InvalidRequest
from tests.support.building import one_chunk
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import PROJECT

TEXT = """\
version: 1
name: digits
build: {secrets: [token], tags: [latest]}
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: x86-cpu}, {profile: arm64-cpu}]
"""
PLAIN = TEXT.replace("secrets: [token], ", "")
# What is in a bundle is resolved without running anything, so that no secret is of use there.
WITH_BUNDLE = PLAIN.replace("arm64-cpu}", "arm64-cpu}, {profile: x86-cpu, artifact: bundle}")
REQUEST = BuildRequest(PROJECT, TEXT.encode(), secrets={"token": b"hunter2"})


@pytest.fixture
def builder() -> ScriptedBuilder:
    return ScriptedBuilder()


@pytest.fixture
async def bench(tmp_path: Path, builder: ScriptedBuilder) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, builder) as opened:
        yield opened


async def test_every_target_of_the_spec_waits_and_knows_its_platform_and_key(bench: Bench) -> None:
    made = await bench.service().create(BuildRequest(PROJECT, WITH_BUNDLE.encode()))
    assert [(each.key, each.platform, each.kind.value) for each in made.targets] == [
        ("x86-cpu", "linux/amd64", "image"),
        ("arm64-cpu", "linux/arm64", "image"),
        ("x86-cpu.bundle", "linux/amd64", "bundle"),
    ]
    assert len({each.cache_key for each in made.targets}) == 3
    assert (made.state, made.tags) == (BuildState.QUEUED, ("latest",))


async def test_only_the_targets_that_are_asked_for_are_built(bench: Bench) -> None:
    wanted = BuildRequest(PROJECT, WITH_BUNDLE.encode(), targets=("x86-cpu.bundle", "arm64-cpu"))
    made = await bench.service().create(wanted)
    assert [each.key for each in made.targets] == ["arm64-cpu", "x86-cpu.bundle"]
    with pytest.raises(InvalidRequest, match=r"no target 'x86'; it has x86-cpu, arm64-cpu, x86-cpu.bundle"):
        await bench.service().create(replace(wanted, targets=("x86",)))


async def test_a_request_is_refused_whose_secrets_are_others_than_the_specs(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="names 'token', and no value"):
        await bench.service().create(replace(REQUEST, secrets={}))
    with pytest.raises(InvalidRequest, match="does not name 'other'"):
        await bench.service().create(replace(REQUEST, secrets={"token": b"", "other": b""}))


async def test_secrets_reach_the_builder_and_are_nowhere_else_and_gone_at_the_end(
    bench: Bench, builder: ScriptedBuilder
) -> None:
    made = await bench.service().create(replace(REQUEST, targets=("x86-cpu",)))
    assert b"hunter2" not in (bench.folder / "controller.db").read_bytes()
    async with bench.working():
        await bench.reaches(made.id, BuildState.BUILDING)
        assert await bench.store.transact(lambda tx: tx.builds.secrets(made.id)) is not None
        builder.gate.set()
        await bench.comes_to(lambda build: build.targets[0].done, made.id)
    assert builder.jobs[0].secrets == {"token": b"hunter2"}
    assert await bench.store.transact(lambda tx: tx.builds.secrets(made.id)) is None


async def test_an_archive_comes_in_place_of_files_and_not_beside_them(bench: Bench) -> None:
    service, listed = bench.service(), (ContextFile("a", "sha256:" + "a" * 64, 1),)
    both = replace(REQUEST, files=listed, archive="sha256:" + "a" * 64)
    with pytest.raises(InvalidRequest, match="send either files or an archive"):
        await service.create(both)


async def test_the_files_of_an_archive_are_those_of_the_build(bench: Bench) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        entry = tarfile.TarInfo("model/a.onnx")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"model"))
    content = held.getvalue()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    uploads = UploadStore(bench.folder / "uploads", min_free_bytes=0)
    await uploads.write(digest, len(content), 0, one_chunk(content), PROJECT.user_id)
    text = PLAIN.replace("build: {", "build: {files: [model], ")
    made = await bench.service(uploads).create(BuildRequest(PROJECT, text.encode(), archive=digest))
    assert [(file.path, file.size_bytes) for file in made.files] == [("model/a.onnx", 5)]
    with pytest.raises(InvalidRequest, match="not named by"):
        await bench.service(uploads).create(BuildRequest(PROJECT, PLAIN.encode(), archive=digest))


async def test_files_that_were_not_uploaded_are_named(bench: Bench) -> None:
    text = PLAIN.replace("build: {", "build: {files: [a], ")
    wanted = BuildRequest(PROJECT, text.encode(), (ContextFile("a", "sha256:" + "a" * 64, 1),))
    with pytest.raises(FailedPrecondition) as raised:
        await bench.service().create(wanted)
    assert raised.value.metadata == {"missing": "sha256:" + "a" * 64}


async def test_a_repeated_request_is_answered_with_the_same_build(bench: Bench) -> None:
    wanted = replace(REQUEST, request_id="r-1")
    service = bench.service()
    assert (await service.create(wanted)).id == (await service.create(wanted)).id


async def test_what_stays_with_the_builder_cannot_be_deployed(bench: Bench) -> None:
    deployments = DeploymentService(bench.store, bench.service(), bench.secrets)
    text = PLAIN.replace("build: {", "build: {push: false, ")
    with pytest.raises(InvalidRequest, match=r"build\.push is false"):
        await deployments.apply(Request(PROJECT, text.encode()))


async def test_what_needs_secrets_is_deployed_without_them_once_it_was_built(bench: Bench) -> None:
    deployments = DeploymentService(bench.store, bench.service(), bench.secrets)
    with pytest.raises(InvalidRequest, match=r"build_secrets: .* names 'token', and no value for it was sent"):
        await deployments.apply(Request(PROJECT, TEXT.encode()))
    made = await bench.service().create(REQUEST)
    applied = await deployments.apply(Request(PROJECT, TEXT.encode(), build_id=made.id))
    assert applied.deployment.build_id == made.id


async def test_a_deployment_whose_build_is_cancelled_has_failed_and_says_so(bench: Bench) -> None:
    deployments = DeploymentService(bench.store, bench.service(), bench.secrets)
    applied = (await deployments.apply(Request(PROJECT, PLAIN.encode()))).deployment
    await bench.service().cancel(applied.build_id)
    condition = (await deployments.get(applied.id)).condition
    assert (condition.state.value, condition.reason) == ("FAILED", "BuildCancelled")
    assert applied.build_id in condition.message
