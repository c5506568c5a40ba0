"""Python packages of an image that their index does not have for the target, or cannot give: real Podman and a real
index. By a step, and laid out for another architecture without running anything."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds.emulation import own_architecture
from controller.builds.model import BuildFailed, RegistryAccess
from controller.builds.registry import has_manifest
from tests.support.building import Workshop, builder_in, open_workshop
from tests.support.wheel_index import WheelIndex, running_wheel_index, wheel

pytestmark = [
    pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("image-wheels"),
    pytest.mark.skipif(own_architecture() != "amd64", reason="takes arm64 for a foreign architecture"),
]  # fmt: skip

WHEELS = dict(
    [
        wheel("elsewhere", "1.0", tag="cp311-cp311-win_amd64"),
        wheel("here", "1.0"),
        wheel("needy", "1.0", needs=("elsewhere",)),
    ]
)
PLATFORMS = {"x86-cpu": "linux/amd64", "arm64-cpu": "linux/arm64"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WheelIndex]:
    async with running_wheel_index(tmp_path_factory.mktemp("index"), WHEELS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory, index: WheelIndex) -> AsyncIterator[Workshop]:
    """Its builder trusts the index."""
    async with open_workshop(tmp_path_factory.mktemp("wheels")) as made:
        registry = made.registry
        access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
        builder = builder_in(made.folder / "trusting", access, made.uploads, ca_bundle=index.ca_file)
        await builder.recover()
        yield replace(made, builder=builder)
        await builder.close()


@pytest.fixture
def workshop(opened: Workshop, index: WheelIndex, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    opened.lines.clear()
    return opened


async def failure_of(workshop: Workshop, profile: str, *packages: str) -> BuildFailed:
    """With what an image with these packages fails; of the build nothing is left."""
    await workshop.build(workshop.job("before", {}, profile=profile))
    images = workshop.images()
    job = workshop.job("fails", {"packages": {"pypi": list(packages)}}, profile=profile)
    with pytest.raises(BuildFailed) as caught:
        await workshop.build(job)
    assert workshop.leftovers() == []
    assert workshop.images() == images
    assert not await has_manifest(job.repository, job.build_id, access_of(workshop))
    return caught.value


def access_of(workshop: Workshop) -> RegistryAccess:
    return RegistryAccess(workshop.registry.address, workshop.registry.ca_file, workshop.registry.push_credentials)


@pytest.mark.parametrize("profile", PLATFORMS)
@pytest.mark.parametrize("packages", [["elsewhere"], ["elsewhere==1.0"], ["here", "needy"]], ids=",".join)
async def test_a_package_whose_wheels_are_for_other_platforms_is_named_and_nothing_is_left(
    workshop: Workshop, profile: str, packages: list[str]
) -> None:
    failure = await failure_of(workshop, profile, *packages)
    assert (failure.reason, failure.retryable) == ("NoWheelForPlatform", False), failure.last_lines
    assert failure.message.startswith("elsewhere")
    assert f"has no wheel for this Python on {PLATFORMS[profile]}" in failure.message
    assert "take another version, or another build.base" in failure.message
    assert any("win_amd64" in line for line in failure.last_lines)


@pytest.mark.parametrize("profile", PLATFORMS)
async def test_an_index_that_is_down_is_tried_again_and_nothing_is_left(
    workshop: Workshop, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_wheel_index(tmp_path, WHEELS) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    failure = await failure_of(workshop, profile, "here")
    assert (failure.reason, failure.retryable) == ("PackageIndexUnreachable", True), failure.last_lines
    assert "a package index cannot be reached from the builder" in failure.message
    assert any(index.url in line for line in failure.last_lines)


async def test_what_fits_the_target_is_installed_from_the_same_index(workshop: Workshop) -> None:
    for profile in PLATFORMS:
        await workshop.build(workshop.job("works", {"packages": {"pypi": ["here"]}}, profile=profile))
