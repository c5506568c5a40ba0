"""What the builder reads from a real registry and puts there."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.builds import registry
from controller.builds.model import RegistryAccess
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
