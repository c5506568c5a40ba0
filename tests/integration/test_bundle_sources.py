"""Packages without a wheel, in bundles: made from source by real Podman."""

import io
import json
import tarfile
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from controller.builds.builder import ImageBuilder
from controller.builds.bundles import BundleBuilder, WheelSmith
from controller.builds.bundles.packing import TITLE
from controller.builds.model import BuildFailed
from controller.builds.settings import BuilderSettings
from tests.support.building import BASE_CACHE
from tests.support.bundling import BundleShop, open_bundle_shop
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
