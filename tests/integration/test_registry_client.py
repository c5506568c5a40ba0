"""What the builder reads from a real registry and puts there."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.builds import blobs, registry
from controller.builds.blobs import blob_of, has_blob, push_blob
from controller.builds.materials import attach, send_materials
from controller.builds.materials_document import document
from controller.builds.materials_reading import Package
from controller.builds.model import ContextFile, RegistryAccess, TargetJob
from controller.builds.referrers import attach_document, referrers
from controller.builds.registry_session import RegistrySession, RegistryUnreachable
from controller.spec.model import BuildSpec
from tests.support.registry import running_registry
from tests.support.tiny_images import Registry, push_tiny


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[RegistryAccess]:
    async with running_registry(tmp_path) as running:
        yield RegistryAccess(running.address, running.ca_file, running.push_credentials)


async def push(access: RegistryAccess, name: str) -> tuple[str, str]:
    """Repository and digest of an image that was pushed by another program."""
    assert access.ca_file is not None
    registry = Registry(access.address, access.credentials(), access.ca_file)
    artifact = await asyncio.to_thread(push_tiny, registry, name)
    return f"{access.address}/{name}", artifact.digest


async def test_a_manifest_is_put_once_or_twice_and_is_there_afterwards(access: RegistryAccess) -> None:
    repository, digest = await push(access, "alice/digits")
    image = await registry.read_manifest(repository, digest, access)
    entry = {"mediaType": image.media_type, "digest": digest, "size": len(image.body)}
    index = json.dumps({"schemaVersion": 2, "mediaType": registry.INDEX_TYPE, "manifests": [entry]}).encode()
    assert not await registry.has_manifest(repository, "joined", access)
    first = await registry.put_manifest(repository, "joined", index, registry.INDEX_TYPE, access)
    second = await registry.put_manifest(repository, "joined", index, registry.INDEX_TYPE, access)
    assert first == second == registry.digest_of(index)
    assert await registry.has_manifest(repository, "joined", access)
    assert await registry.has_manifest(repository, first, access)
    read = await registry.get_manifest(repository, "joined", access)
    assert read is not None
    assert (read.body, read.media_type) == (index, registry.INDEX_TYPE)


async def test_a_manifest_that_names_what_is_not_there_is_refused_with_the_registrys_words(
    access: RegistryAccess,
) -> None:
    entry = {"mediaType": registry.MANIFEST_TYPE, "digest": registry.digest_of(b"nothing"), "size": 7}
    index = json.dumps({"schemaVersion": 2, "mediaType": registry.INDEX_TYPE, "manifests": [entry]}).encode()
    repository = f"{access.address}/alice/digits"
    with pytest.raises(registry.RegistryUnreachable, match=r"400.*MANIFEST_BLOB_UNKNOWN"):
        await registry.put_manifest(repository, "joined", index, registry.INDEX_TYPE, access)
    assert await registry.get_manifest(repository, "joined", access) is None


async def test_a_document_becomes_a_referrer_of_an_image_once(access: RegistryAccess) -> None:
    repository, digest = await push(access, "alice/digits")
    first = await attach_document(repository, digest, b'{"a":1}', "application/vnd.cyclonedx+json", access)
    again = await attach_document(repository, digest, b'{"a":1}', "application/vnd.cyclonedx+json", access)
    assert first == again
    (entry,) = await referrers(repository, digest, access)
    assert (entry["digest"], entry["artifactType"]) == (first, "application/vnd.cyclonedx+json")
    manifest = json.loads((await registry.read_manifest(repository, first, access)).body)
    assert manifest["subject"]["digest"] == digest
    async with RegistrySession(repository, access) as session:
        assert await has_blob(session, manifest["layers"][0]["digest"])


async def test_a_session_that_pushes_asks_for_one_token(access: RegistryAccess) -> None:
    asked: list[None] = []

    def credentials() -> tuple[str, str]:
        asked.append(None)
        return access.credentials()

    counted = replace(access, credentials=credentials)
    async with RegistrySession(f"{access.address}/alice/one", counted, pushes=True) as session:
        assert await push_blob(session, blob_of("application/octet-stream", b"content")) == len(b"content")
    assert len(asked) == 1


async def test_a_bill_of_the_same_packages_is_not_sent_again(access: RegistryAccess) -> None:
    """And what others find has none of the user's own files."""
    repository, digest = await push(access, "alice/digits")
    _, other = await push(access, "alice/digits")
    held = []
    for subject, content in ((digest, "a"), (other, "b")):
        job = TargetJob(
            build_id="b-1", user_id="alice", project_id="vision", name="digits", profile="x86-cpu", spec=BuildSpec(),
            repository=repository, files=(ContextFile("server.py", f"sha256:{content * 64}", 3),),
        )  # fmt: skip
        async with RegistrySession(repository, access, pushes=True) as session:
            manifest = await registry.checked_manifest(session, subject)
            bill = document(job, [Package("pkg:pypi/a@1", "a", "1")], job.files)
            await attach(session, manifest, await send_materials(session, bill))
        (entry,) = await referrers(repository, subject, access)
        made = await registry.read_manifest(repository, entry["digest"], access)
        held.append(json.loads(made.body)["layers"])
    assert held[0] == held[1]
    async with (
        RegistrySession(repository, access) as session,
        session.request("GET", f"blobs/{held[0][0]['digest']}") as answer,
    ):
        components = json.loads(await answer.read())["components"]
    assert [part["name"] for part in components] == ["a"]


async def test_a_blob_is_sent_in_pieces_once_and_mounted_elsewhere(
    access: RegistryAccess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "PIECE", 1000)
    content = bytes(range(256)) * 30
    file = tmp_path / "content"
    file.write_bytes(content)
    blob = replace(blob_of("application/octet-stream", content), content=file)
    async with RegistrySession(f"{access.address}/alice/one", access) as session:
        assert await push_blob(session, blob) == len(content)
        assert await push_blob(session, blob) == 0
        async with session.request("GET", f"blobs/{blob.digest}") as answer:
            assert await answer.read() == content
    async with RegistrySession(f"{access.address}/alice/two", access) as session:
        assert await push_blob(session, blob, mount_from="alice/one") == 0
        assert await has_blob(session, blob.digest)


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_small_blob_whose_connection_breaks_is_sent_again(access: RegistryAccess, arrived: bool) -> None:
    sent: list[str] = []

    class Breaking(RegistrySession):
        @asynccontextmanager
        async def request(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
            if method == "PUT":
                sent.append(path)
            breaks = method == "PUT" and len(sent) == 1
            if breaks and not arrived:
                raise RegistryUnreachable("cut")
            async with super().request(method, path, **more) as answer:
                if breaks:
                    raise aiohttp.ServerDisconnectedError
                yield answer

    blob = blob_of("application/octet-stream", b"content")
    async with Breaking(f"{access.address}/alice/one", access) as session:
        assert await push_blob(session, blob) == len(b"content")
        assert await has_blob(session, blob.digest)
    assert len(sent) == 2


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_blob_whose_connection_breaks_is_whole_in_the_end(
    access: RegistryAccess, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    monkeypatch.setattr(blobs, "PIECE", 1000)
    content = bytes(range(256)) * 30
    pieces: list[str] = []

    class Breaking(RegistrySession):
        @asynccontextmanager
        async def request(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
            if method == "PATCH":
                pieces.append(more["headers"]["Content-Range"])
            breaks = method == "PATCH" and len(pieces) == 3
            if breaks and not arrived:
                raise RegistryUnreachable("cut")
            async with super().request(method, path, **more) as answer:
                if breaks:
                    raise aiohttp.ServerDisconnectedError
                yield answer

    async with Breaking(f"{access.address}/alice/one", access) as session:
        blob = blob_of("application/octet-stream", content)
        await push_blob(session, blob)
        async with session.request("GET", f"blobs/{blob.digest}") as answer:
            assert await answer.read() == content
    # What did not arrive is sent again; where the answer was lost, this registry takes the upload from its beginning.
    assert len(pieces) == (8 + 3 if arrived else 8 + 1)
