"""Bases from a real registry: for the right platform only, found again without it, and never quietly another one."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds.bases import BaseResolver
from controller.builds.bootstrap import Bootstrapper
from controller.builds.model import BuildFailed, RegistryAccess
from controller.builds.registry import INDEX_TYPE, get_manifest, put_manifest
from controller.builds.targets import load_profiles
from controller.housekeeping.layers import LayerCache
from controller.housekeeping.plan import Policy
from tests.support.building import BASE_CACHE, Workshop, open_workshop
from tests.support.lying_proxy import Lie, lying_proxy
from tests.support.tiny_images import Registry, push_tiny

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("bases")]

PROFILES = load_profiles()


@dataclass(frozen=True)
class Shelf:
    """A workshop and what is pushed to its registry."""

    workshop: Workshop

    @property
    def access(self) -> RegistryAccess:
        server = self.workshop.registry
        return RegistryAccess(server.address, server.ca_file, server.push_credentials)

    async def push(self, name: str, architecture: str = "amd64", variant: str = "") -> str:
        """An image of one platform; its name by digest."""
        server = self.workshop.registry
        pusher = Registry(server.address, server.push_credentials(), server.ca_file)
        made = await asyncio.to_thread(
            push_tiny, pusher, f"alice/{name}", architecture=architecture, variant=variant, label=name
        )
        return f"{made.repository}@{made.digest}"

    async def push_index(self, name: str, *architectures: str) -> str:
        """An image of several platforms; its name by tag."""
        members = []
        for architecture in architectures:
            repository, _, digest = (await self.push(name, architecture)).partition("@")
            manifest = await get_manifest(repository, digest, self.access)
            assert manifest is not None
            platform = {"os": "linux", "architecture": architecture}
            entry = {"mediaType": manifest.media_type, "digest": digest, "size": len(manifest.body)}
            members.append({**entry, "platform": platform})
        about = {**members[0], "platform": {"os": "unknown", "architecture": "unknown"}}
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*members, about]}
        await put_manifest(repository, "V1", json.dumps(index).encode(), INDEX_TYPE, self.access)
        return f"{repository}:V1"

    def resolver(self, access: RegistryAccess | None = None) -> BaseResolver:
        """One that knows nothing of what others have pulled into this storage."""
        podman = self.workshop.builder.podman
        return BaseResolver(podman, Bootstrapper(podman, BASE_CACHE), access or self.access, 5, memory=0)

    async def resolve(self, resolver: BaseResolver, name: str, profile: str = "x86-cpu") -> str:
        """The id of the image that the name means."""
        folder = self.workshop.builder.podman.temporary / "resolve"
        folder.mkdir(exist_ok=True)
        try:
            return (await resolver.resolve(name, PROFILES[profile], folder, lambda *_: None)).image_id
        finally:
            await self.workshop.builder.recover()

    @asynccontextmanager
    async def without_registry(self) -> AsyncIterator[None]:
        await self.workshop.registry.registry.stop()
        try:
            yield
        finally:
            await self.workshop.registry.registry.start()

    async def built_without_push(self, build_id: str, base: str) -> str:
        """The id of the image, every step of which was run."""
        workshop = self.workshop
        job = workshop.job(build_id, {"base": base, "push": False}, no_cache=True)
        await workshop.builder.build(job, lambda *_: None, lambda _: None)
        found: str = workshop.podman_json("image", "inspect", f"localhost/longshore/build/x86-cpu:{build_id}")[0]["Id"]
        return found

    async def fails(self, build_id: str, base: str, profile: str) -> BuildFailed:
        with pytest.raises(BuildFailed) as caught:
            await self.workshop.build(self.workshop.job(build_id, {"base": base}, profile=profile))
        return caught.value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("bases")) as workshop:
        yield workshop


@pytest.fixture
def shelf(module_workshop: Workshop) -> Iterator[Shelf]:
    yield Shelf(module_workshop)
    assert module_workshop.leftovers() == []


async def test_a_base_for_another_platform_fails_the_build_and_leaves_nothing(shelf: Shelf) -> None:
    base = await shelf.push("single")
    images, stored = shelf.workshop.images(), shelf.workshop.registry.stored()
    failure = await shelf.fails("other", base, "arm64-cpu")
    assert (failure.reason, failure.retryable) == ("BaseNotFound", False)
    assert failure.message.startswith(f"the registry has {base} for linux/amd64 only, not for linux/arm64; correct")
    assert shelf.workshop.leftovers() == []
    assert shelf.workshop.images() == images
    assert shelf.workshop.registry.stored() == stored


@pytest.mark.parametrize(
    ("architecture", "variant", "profile", "fits"),
    [
        ("amd64", "v1", "x86-cpu", True),
        ("amd64", "v3", "x86-cpu", False),
        ("arm64", "v8", "arm64-cpu", True),
        ("arm", "v6", "armv7-cpu", True),
        ("arm", "v8", "armv7-cpu", False),
        ("arm", "v7", "arm64-cpu", False),
    ],
)
async def test_a_variant_is_taken_where_every_device_of_the_target_runs_it(
    shelf: Shelf, architecture: str, variant: str, profile: str, fits: bool
) -> None:
    base = await shelf.push(f"variant-{variant}", architecture, variant)
    if fits:
        assert await shelf.resolve(shelf.resolver(), base, profile)
    else:
        with pytest.raises(BuildFailed, match=f"for linux/{architecture}/{variant} only, not for"):
            await shelf.resolve(shelf.resolver(), base, profile)


async def test_of_an_image_of_other_platforms_it_is_said_which(shelf: Shelf) -> None:
    base = await shelf.push_index("several", "amd64", "arm64")
    failure = await shelf.fails("several", base, "armv7-cpu")
    assert (failure.reason, failure.retryable) == ("BaseNotFound", False)
    assert f"the registry has {base} for linux/amd64, linux/arm64, not for linux/arm/v7" in failure.message


async def test_a_base_that_another_target_uses_stays(shelf: Shelf) -> None:
    base = await shelf.push("used")
    image_id = await shelf.resolve(shelf.resolver(), base)
    await shelf.fails("unused", base, "arm64-cpu")
    assert f"sha256:{image_id}" in shelf.workshop.images()
    async with shelf.without_registry():
        assert await shelf.resolve(shelf.resolver(), base) == image_id


async def test_each_platform_of_a_base_is_found_when_its_registry_is_gone(shelf: Shelf) -> None:
    base = await shelf.push_index("both", "amd64", "arm64")
    pulled = {name: await shelf.resolve(shelf.resolver(), base, name) for name in ("x86-cpu", "arm64-cpu")}
    assert len(set(pulled.values())) == 2
    async with shelf.without_registry():
        found = {name: await shelf.resolve(shelf.resolver(), base, name) for name in pulled}
        with pytest.raises(BuildFailed) as caught:
            await shelf.resolve(shelf.resolver(), base, "armv7-cpu")
    assert found == pulled
    assert (caught.value.reason, caught.value.retryable) == ("BaseUnreachable", True)


async def test_what_is_built_on_a_base_is_the_same_after_its_name_has_moved(shelf: Shelf) -> None:
    base = await shelf.push_index("moved", "amd64", "arm64")
    first = await shelf.built_without_push("moved1", base)
    # The name is the other platform's from now on.
    await shelf.resolve(shelf.resolver(), base, "arm64-cpu")
    async with shelf.without_registry():
        assert await shelf.built_without_push("moved2", base) == first


async def test_a_base_that_its_registry_does_not_give_for_now_is_never_replaced(shelf: Shelf, tmp_path: Path) -> None:
    async with lying_proxy(shelf.workshop.registry, tmp_path) as (proxy, access):
        pushed = await shelf.push("limited")
        base = pushed.replace(shelf.workshop.registry.address, access.address)
        kept = await shelf.resolve(shelf.resolver(access), base)
        limit = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit"}]}'
        # Podman would wait two minutes.
        proxy.lies.append(
            Lie("GET", "/manifests/", limit, "application/json", status=429, headers={"Retry-After": "0"})
        )
        with pytest.raises(BuildFailed, match=r"does not give .* now: .*pull rate limit") as caught:
            await shelf.resolve(shelf.resolver(access), base)
        assert (caught.value.reason, caught.value.retryable) == ("BaseNotGiven", True)
        proxy.lies[:] = [replace(proxy.lies[0], status=503, body=b"away")]
        assert await shelf.resolve(shelf.resolver(access), base) == kept


async def test_what_is_known_of_a_base_goes_with_it_and_comes_again(shelf: Shelf) -> None:
    base = await shelf.push("gone")
    podman, resolver = shelf.workshop.builder.podman, shelf.resolver()
    image_id = await shelf.resolve(resolver, base)
    known = set((podman.folder / "pulled").iterdir())
    await LayerCache(podman, lambda: False).tidy([], Policy(cache_bytes=0), 0.0)
    assert f"sha256:{image_id}" not in shelf.workshop.images()
    assert set((podman.folder / "pulled").iterdir()) < known
    async with shelf.without_registry():
        with pytest.raises(BuildFailed, match="cannot pull"):
            await shelf.resolve(resolver, base)
    assert await shelf.resolve(resolver, base) == image_id
    # Both names are there again, so that the base does not go with what is built on it.
    assert f"localhost/longshore/pulled:{image_id}" in shelf.workshop.podman(
        "images", "--format", "{{.Repository}}:{{.Tag}}"
    )
