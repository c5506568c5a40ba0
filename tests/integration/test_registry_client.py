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
from controller.builds.model import RegistryAccess
from controller.builds.referrers import attach_document, referrers
from controller.builds.registry_session import RegistrySession, RegistryUnreachable
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
