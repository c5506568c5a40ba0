"""Proxies and registries that answer with something else than a registry's answer: status 200, and a page."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds import registry
from controller.builds.blobs import blob_of, push_blob
from controller.builds.model import BuildFailed, BuildState, RegistryAccess
from controller.builds.referrers import attach_document, referrers, tag_of
from controller.builds.registry import MANIFEST_TYPE, RegistryUnreachable
from controller.builds.registry_session import RegistrySession
from tests.integration.test_build_joining import BOTH, PushingBuilder, named, until_lines
from tests.support.building import SMALL_BASE, builder_in, leftovers_of, open_workshop
from tests.support.lying_proxy import PAGE, Lie, LyingProxy, lying_proxy
from tests.support.queueing import open_bench
from tests.support.registry import RegistryUnderTest, running_registry
from tests.support.tiny_images import Registry, push_tiny

READS = Lie("GET", "/manifests/")
NO_MANIFESTS = {
    "page": PAGE,
    "nothing": b"",
    "no text": b"\xff\xfe",
    "null": b"null",
    "list": b"[1]",
    "empty": b"{}",
    "layers that are a number": b'{"schemaVersion": 2, "layers": 7}',
    "layer that is a number": b'{"schemaVersion": 2, "layers": [7]}',
    "layer without a size": b'{"schemaVersion": 2, "layers": [{}]}',
    "size that is text": b'{"schemaVersion": 2, "config": {"size": "7"}}',
    "size without end": b'{"schemaVersion": 2, "manifests": [{"size": Infinity}]}',
    "lists without end": b"[" * 100_000,
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RegistryUnderTest]:
    async with running_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
async def between(server: RegistryUnderTest, tmp_path: Path) -> AsyncIterator[tuple[LyingProxy, RegistryAccess]]:
    async with lying_proxy(server, tmp_path) as made:
        yield made


async def push(server: RegistryUnderTest) -> tuple[str, str]:
    """Path of the repository and digest of an image that was pushed by another program."""
    registry = Registry(server.address, server.push_credentials(), server.ca_file)
    artifact = await asyncio.to_thread(push_tiny, registry, "alice/digits")
    return "alice/digits", artifact.digest


@pytest.mark.parametrize("body", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
async def test_what_is_no_manifest_is_taken_for_a_registry_that_does_not_answer(
    between: tuple[LyingProxy, RegistryAccess], body: bytes
) -> None:
    proxy, access = between
    proxy.lies = [Lie("GET", "/manifests/", body, MANIFEST_TYPE)]
    with pytest.raises(RegistryUnreachable, match="manifests/latest, with what is no manifest"):
        await registry.get_manifest(f"{access.address}/alice/digits", "latest", access)


@pytest.mark.parametrize(
    "lie",
    [Lie("HEAD", "/manifests/"), Lie("HEAD", "/manifests/", media_type=MANIFEST_TYPE, length=False)],
    ids=["a page", "no length"],
)
async def test_a_document_is_attached_once_the_registry_itself_answers(
    server: RegistryUnderTest, between: tuple[LyingProxy, RegistryAccess], lie: Lie
) -> None:
    (proxy, access), (path, digest) = between, await push(server)
    repository, kind = f"{access.address}/{path}", "application/vnd.cyclonedx+json"
    proxy.lies = [lie]
    with pytest.raises(RegistryUnreachable, match="with what is no manifest"):
        await attach_document(repository, digest, b"{}", kind, access)
    proxy.lies = [Lie("GET", f"/manifests/{tag_of(digest)}")]
    with pytest.raises(RegistryUnreachable, match="with what is no manifest"):
        await attach_document(repository, digest, b"{}", kind, access)
    proxy.lies = []
    made = await attach_document(repository, digest, b"{}", kind, access)
    assert [entry["digest"] for entry in await referrers(repository, digest, access)] == [made]


async def test_an_upload_that_nobody_says_where_to_send_is_taken_for_a_registry_that_does_not_answer(
    between: tuple[LyingProxy, RegistryAccess],
) -> None:
    proxy, access = between
    proxy.lies = [Lie("POST", "/blobs/uploads/", status=202)]
    async with RegistrySession(f"{access.address}/alice/digits", access) as session:
        with pytest.raises(RegistryUnreachable, match="does not say where the content is to be sent"):
            await push_blob(session, blob_of("application/octet-stream", b"content"))
        proxy.lies = []
        assert await push_blob(session, blob_of("application/octet-stream", b"content")) == len(b"content")


async def test_joining_waits_until_the_registry_itself_answers(
    between: tuple[LyingProxy, RegistryAccess], tmp_path: Path
) -> None:
    proxy, access = between
    proxy.lies = [READS]
    async with (
        open_bench(tmp_path / "bench", PushingBuilder(access, tmp_path), access=access) as bench,
        bench.working(),
    ):
        made = await bench.service().create(BOTH)
        waiting = await bench.comes_to(lambda build: all(each.done for each in build.targets), made.id)
        await until_lines(bench, made.id, "tried again by itself")
        assert (waiting.state, waiting.ended, waiting.join_next > 0) == (BuildState.PUSHING, 0, True)
        proxy.lies = []
        joined = await bench.reaches(made.id, BuildState.SUCCEEDED)
    assert joined.image_index is not None
    assert await named(bench, "latest") == joined.image_index.digest


@pytest.mark.podman
async def test_an_image_that_a_proxy_hides_after_its_push_is_tried_again(tmp_path: Path) -> None:
    async with open_workshop(tmp_path) as workshop, lying_proxy(workshop.registry, tmp_path) as (proxy, access):
        builder = builder_in(tmp_path / "behind", access, workshop.uploads)
        await builder.recover()
        job = workshop.job("hidden", {"base": SMALL_BASE}, repository=f"{access.address}/alice/digits")
        proxy.lies = [READS]
        try:
            with pytest.raises(BuildFailed, match=r"pushed .*, but it is not there: .* what is no manifest") as caught:
                await builder.build(job, lambda *_: None, lambda _: None)
            assert (caught.value.reason, caught.value.retryable) == ("RegistryUnreachable", True)
            assert proxy.told == 1
            proxy.lies = []
            result = await builder.build(job, lambda *_: None, lambda _: None)
            assert result.artifact is not None
            assert await registry.has_manifest(job.repository, result.artifact.digest, access)
            assert leftovers_of(builder.podman) == []
        finally:
            await builder.close()
