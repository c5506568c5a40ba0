"""Packages without a wheel, in bundles: made from source by real Podman."""

import io
import json
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.builds.builder import ImageBuilder
from controller.builds.bundles import BundleBuilder, WheelSmith
from controller.builds.bundles.packing import TITLE
from controller.builds.hosts import BuilderHost, BuilderPool
from controller.builds.machine import Machine
from controller.builds.model import BuildFailed, BuildResult, OnLine
from controller.builds.remote import RemotePlace
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile, load_profiles
from tests.support.builder_hosts import HostUnderTest, running_host
from tests.support.building import BASE_CACHE, leftovers_of
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.device_network import DeviceNetwork
from tests.support.wheel_index import wheel

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]

# A build backend in the source itself: nothing has to be fetched for it.
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import os, zipfile

INFO = "fromsource-1.0.dist-info"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    print("compiling on", os.uname().machine)
    name = "fromsource-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in {
            "fromsource.py": "ANSWER = 42\\n",
            f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: fromsource\\nVersion: 1.0\\nRequires-Dist: oracle\\n",
            f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            f"{INFO}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return name
"""


def source(name: str, backend: str) -> tuple[str, bytes]:
    packed = io.BytesIO()
    texts = {
        "pyproject.toml": PYPROJECT,
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in texts.items():
            member = tarfile.TarInfo(f"{name}-1.0/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"{name}-1.0.tar.gz", packed.getvalue()


FILES = dict(
    [
        source("fromsource", BACKEND),
        source("broken", "raise SystemExit('no compiler in sight')\n"),
        wheel("oracle", "2.0"),
    ]
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BundleShop]:
    async with open_bundle_shop(tmp_path_factory.mktemp("sources"), FILES) as made:
        settings = BuilderSettings(base_cache=BASE_CACHE, ca_bundle=made.index.ca_file)
        images = ImageBuilder(made.folder / "images", made.uploads, made.access, settings)
        await images.recover()
        made.builder = BundleBuilder(
            made.folder / "with-smith", made.uploads, made.access, settings, smith=WheelSmith(images)
        )
        with pytest.MonkeyPatch.context() as patch:
            # The step is Longshore's own: unlike a user's it is told of an index that takes a password.
            patch.setenv("PIP_INDEX_URL", made.index.url.replace("https://", "https://reader:index-token@"))
            try:
                yield made
            finally:
                await images.close()


async def test_a_package_without_a_wheel_is_made_from_source_in_a_container(shop: BundleShop) -> None:
    result = await shop.build(shop.job("b-source", {"packages": {"pypi": ["fromsource==1.0", "oracle==2.0"]}}))
    manifest = await shop.manifest(result)
    names = [layer["annotations"][TITLE] for layer in manifest["layers"]]
    assert names == ["fromsource-1.0-py3-none-any.whl", "oracle-2.0-py3-none-any.whl"]
    assert result.notes == ("not repeatable: the wheel of fromsource was made from source in a container",)
    assert any(part["name"] == "fromsource" for part in json.loads(result.sbom)["components"])
    assert shop.leftovers() == []
    again = await shop.build(shop.job("b-source", {"packages": {"pypi": ["fromsource==1.0", "oracle==2.0"]}}))
    assert again.artifact == result.artifact


async def test_a_source_that_cannot_be_built_fails_with_its_name_and_its_last_lines(shop: BundleShop) -> None:
    with pytest.raises(BuildFailed) as caught:
        await shop.build(shop.job("b-broken", {"packages": {"pypi": ["broken"]}}))
    assert (caught.value.reason, caught.value.retryable) == ("SourceOnly", False)
    assert "broken has no wheel that fits, and none could be made from source" in caught.value.message
    assert any("no compiler in sight" in line for line in caught.value.last_lines)
    assert shop.leftovers() == []


@dataclass
class FarShop:
    """A shop on a machine that builds nothing itself, and its builder host."""

    shop: BundleShop
    images: ImageBuilder
    host: HostUnderTest
    pool: BuilderPool

    async def build(self, build_id: str, spec: dict[str, Any]) -> BuildResult:
        job = self.shop.job(build_id, spec)
        return await self.pool.build(job, lambda _, text: self.shop.lines.append(text), lambda _: None)


@pytest_asyncio.fixture(loop_scope="module")
async def far_shop(tmp_path: Path) -> AsyncIterator[FarShop]:
    gateway = DeviceNetwork.of_this_process().gateway
    async with running_host(tmp_path / "host") as host, open_bundle_shop(tmp_path / "far", FILES, host=gateway) as shop:
        settings = BuilderSettings(base_cache=BASE_CACHE, ca_bundle=shop.index.ca_file)
        images = ImageBuilder(shop.folder / "images", shop.uploads, shop.access, settings)

        async def on_machine(profile: TargetProfile, line: OnLine, work: Callable[[Machine], Awaitable[None]]) -> None:
            await pool.on_machine(profile, line, work)

        smith = WheelSmith(images, on_machine)
        bundles = BundleBuilder(shop.folder / "with-smith", shop.uploads, shop.access, settings, smith=smith)
        tunnel, journal = host.ssh(), shop.folder / "journal"
        far = RemotePlace(tunnel.url, tunnel, (), images.podman, journal, images.operators_base)
        pool = BuilderPool(images, [BuilderHost("far", far, 1)], load_profiles(), bundles)
        await pool.recover()
        await pool.probe(pool.hosts[0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIP_INDEX_URL", shop.index.url)
            try:
                yield FarShop(shop, images, host, pool)
            finally:
                await images.close()


async def test_where_this_machine_builds_nothing_wheels_are_made_on_a_builder_host(far_shop: FarShop) -> None:
    result = await far_shop.build("b-far", {"packages": {"pypi": ["fromsource==1.0"]}})
    assert [note for note in result.notes if "made from source" in note] == [
        "not repeatable: the wheel of fromsource was made from source in a container"
    ]
    manifest = await far_shop.shop.manifest(result)
    assert "fromsource-1.0-py3-none-any.whl" in [layer["annotations"][TITLE] for layer in manifest["layers"]]
    assert "localhost/longshore/build/x86-cpu" in await far_shop.host.podman("images", "--format", "{{.Repository}}")
    own = await far_shop.images.podman.run("images", "--format", "{{.Repository}}")
    assert "longshore/build" not in own.stdout
    assert await far_shop.host.leftovers() == []
    assert leftovers_of(far_shop.images.podman) == []
    assert far_shop.shop.leftovers() == []


async def test_where_no_host_can_make_a_wheel_the_reason_names_package_and_host(far_shop: FarShop) -> None:
    far_shop.pool.hosts[0].failed("it is being repaired", time.monotonic())
    with pytest.raises(BuildFailed) as caught:
        await far_shop.build("b-away", {"packages": {"pypi": ["fromsource==1.0"]}})
    assert (caught.value.reason, caught.value.retryable) == ("PodmanUnavailable", True)
    assert "a wheel of fromsource==1.0 has to be made from source" in caught.value.message
    assert "far: it is being repaired" in caught.value.message
