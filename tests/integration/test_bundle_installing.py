"""The bare-metal agent gets bundles from a real registry and installs them with uv, also on bad days."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from baremetal_agent.virtualenv.folders import boot_id
from baremetal_agent.virtualenv.installer import Installer
from baremetal_agent.virtualenv.interpreters import find_python
from baremetal_agent.virtualenv.packages import Packages
from controller.builds.registry import read_manifest
from edge_agent.runtime.backend import BackendError, BackendUnavailable, Progress
from edge_agent.runtime.model import Artifact, ArtifactKind
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.counting_proxy import CountingProxy, counting_proxy
from tests.support.wheel_index import wheel

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOISE = 3_000_000
WHEELS = dict(
    [
        wheel("answers", "1.0", code="from oracle import ANSWER\n", needs=("oracle",)),
        wheel("oracle", "2.0", code="ANSWER = 42\n", noise=NOISE),
        wheel("other", "1.0", code="OTHER = 1\n"),
    ]
)
SPEC = {"packages": {"pypi": ["answers==1.0", "oracle==2.0"]}}
MAIN = b"import answers\nprint('the answer is', answers.ANSWER)\n"
REPOSITORY = "alice/vision/digits"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BundleShop]:
    async with open_bundle_shop(tmp_path_factory.mktemp("bundles"), WHEELS) as made:
        made.registry.pullable.add(REPOSITORY)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def link(shop: BundleShop) -> AsyncIterator[CountingProxy]:
    async with counting_proxy(shop.access.address) as proxy:
        yield proxy


class Device:
    """An installer as an agent has one, in a folder of its own; what it fetches goes over `link`."""

    def __init__(self, shop: BundleShop, link: CountingProxy, folder: Path) -> None:
        self.shop, self.link, self.folder = shop, link, folder
        self.user = "device-1"
        self.boot = boot_id()
        self.may_install = False
        self.installer = self.restart()

    def restart(self) -> Installer:
        """Another agent over the same folder."""
        authority = self.shop.registry.ca_file
        packages = Packages(self.may_install)
        self.installer = Installer(self.folder, self.credentials, authority, packages, self.boot)
        return self.installer

    async def credentials(self) -> tuple[str, str]:
        return self.shop.registry.device_credentials(self.user)

    async def bundle(self, name: str, main: bytes = MAIN, **spec: object) -> Artifact:
        """A new bundle of this program in the registry, seen through the link."""
        file = await self.shop.upload("main.py", main)
        result = await self.shop.build(self.shop.job(f"b-{name}", {**SPEC, **spec}, [file]))
        assert result.artifact is not None, result
        repository = f"{self.link.address}/{REPOSITORY}"
        return Artifact(repository, result.artifact.digest, "linux/amd64", ArtifactKind.BUNDLE)

    async def prepare(self, artifact: Artifact) -> list[Progress]:
        seen: list[Progress] = []
        await self.installer.prepare(artifact, seen.append)
        return seen

    async def refusal(self, artifact: Artifact) -> BackendError:
        with pytest.raises(BackendError) as caught:
            await self.prepare(artifact)
        assert self.installer.find(artifact) is None
        return caught.value

    async def output(self, artifact: Artifact) -> str:
        """What the installed program prints."""
        release = self.installer.find(artifact)
        assert release is not None
        argv = [str(release.folder / "environment/bin/python"), "main.py"]
        return await asyncio.to_thread(_output, argv, release.folder / "files")

    async def layers(self, artifact: Artifact) -> list[dict[str, str]]:
        """As the registry has them."""
        found = await read_manifest(f"{self.shop.access.address}/{REPOSITORY}", artifact.digest, self.shop.access)
        return list(json.loads(found.body)["layers"])

    def partial(self) -> list[Path]:
        return list((self.folder / "blobs/partial").glob("*"))


def _output(argv: list[str], folder: Path) -> str:
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True, env={}).stdout


@pytest_asyncio.fixture(loop_scope="module")
async def device(shop: BundleShop, link: CountingProxy, tmp_path: Path) -> AsyncIterator[Device]:
    made = Device(shop, link, tmp_path / "state")
    yield made
    await made.installer.close()


async def test_bundle_is_fetched_with_progress_and_runs(device: Device) -> None:
    artifact = await device.bundle("plain")
    seen = await device.prepare(artifact)
    counts = [progress.fetched_bytes for progress in seen]
    assert counts == sorted(counts)
    assert len(counts) > 3
    assert counts[-1] == seen[-1].total_bytes > NOISE
    assert await device.output(artifact) == "the answer is 42\n"
    assert await device.prepare(artifact) == []
    assert device.partial() == []


async def test_change_of_code_fetches_the_code_alone_and_shares_the_environment(device: Device) -> None:
    first = await device.bundle("before")
    await device.prepare(first)
    second = await device.bundle("after", MAIN + b"print('and no other')\n")
    device.link.reset()
    seen = await device.prepare(second)
    assert seen[-1].fetched_bytes == seen[-1].total_bytes > NOISE
    assert device.link.received < 50_000
    assert await device.output(second) == "the answer is 42\nand no other\n"
    assert await device.output(first) == "the answer is 42\n"
    assert len(list((device.folder / "environments").iterdir())) == 1


async def test_environments_with_a_package_in_common_have_its_files_once(device: Device) -> None:
    one = await device.bundle("one")
    two = await device.bundle("two", packages={"pypi": ["answers==1.0", "oracle==2.0", "other==1.0"]})
    for artifact in (one, two):
        await device.prepare(artifact)
    files = list((device.folder / "environments").glob("*/lib/python*/site-packages/oracle.bin"))
    assert len(files) == 2
    assert files[0].samefile(files[1])


async def test_connection_that_breaks_goes_on_where_it_was(device: Device) -> None:
    artifact = await device.bundle("broken")
    device.link.reset()
    device.link.breaks_at = NOISE // 2
    await device.prepare(artifact)
    assert device.link.breaks == 1
    assert device.link.received < NOISE * 1.2
    assert await device.output(artifact) == "the answer is 42\n"


async def test_fetch_that_was_abandoned_goes_on_where_it_was(device: Device) -> None:
    artifact = await device.bundle("killed")
    half = asyncio.Event()
    task = asyncio.create_task(device.installer.prepare(artifact, lambda seen: _set_at(half, seen, NOISE // 2)))
    await half.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    device.restart()
    device.link.reset()
    seen = await device.prepare(artifact)
    assert seen[0].fetched_bytes > NOISE // 3
    assert device.link.received < NOISE
    assert await device.output(artifact) == "the answer is 42\n"


def _set_at(event: asyncio.Event, seen: Progress, count: int) -> None:
    if seen.fetched_bytes >= count:
        event.set()


async def test_two_that_need_the_same_parts_fetch_them_once(device: Device) -> None:
    artifacts = [await device.bundle("left"), await device.bundle("right", MAIN + b"\n")]
    device.link.reset()
    await asyncio.gather(*(device.prepare(artifact) for artifact in [*artifacts, *artifacts]))
    assert device.link.received < NOISE * 1.2
    assert [await device.output(artifact) for artifact in artifacts] == ["the answer is 42\n"] * 2


async def test_part_that_arrives_changed_is_not_used(device: Device) -> None:
    artifact = await device.bundle("changed")
    await device.prepare(await device.bundle("begun", packages={"pypi": ["other==1.0"]}))
    name = max(await device.layers(artifact), key=lambda layer: int(layer["size"]))["digest"].removeprefix("sha256:")
    (device.folder / "blobs/partial" / name).write_bytes(b"not the beginning of it")
    error = await device.refusal(artifact)
    assert (error.reason, error.retryable) == ("ImagePullFailed", True)
    assert "not what its digest says" in error.message
    await device.prepare(artifact)
    assert await device.output(artifact) == "the answer is 42\n"


@pytest.mark.parametrize("kind", ["wheel", "files"])
async def test_what_the_disk_has_spoiled_is_fetched_anew(device: Device, kind: str) -> None:
    artifact = await device.bundle(f"spoiled-{kind}", f"print('{kind}')\n".encode())
    await device.prepare(artifact)
    await device.installer.prune(frozenset())
    await device.prepare(artifact)
    digest = next(layer["digest"] for layer in await device.layers(artifact) if f".{kind}." in layer["mediaType"])
    damage(device.folder / "blobs/sha256" / digest.removeprefix("sha256:"))
    # What is still compiled would be in the way.
    await device.installer.settled()
    for folder in ("releases", "environments", "caches"):
        shutil.rmtree(device.folder / folder)
    error = await device.refusal(artifact)
    assert (error.reason, error.retryable) == ("ImagePullFailed", True)
    assert "is damaged on this device" in error.message
    await device.prepare(artifact)
    assert await device.output(artifact) == f"{kind}\n"


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def test_without_a_network_a_release_that_a_power_cut_tore_is_made_anew(device: Device) -> None:
    artifact = await device.bundle("torn")
    await device.prepare(artifact)
    await device.installer.close()
    device.boot = "another"
    for marker in device.folder.glob("*/*/.longshore.json"):
        marker.write_text('{"boot": "before"}')
    device.restart()
    assert device.installer.find(artifact) is None
    offline = replace(artifact, repository=f"127.0.0.1:9/{REPOSITORY}")
    await device.prepare(offline)
    assert await device.output(offline) == "the answer is 42\n"


async def test_release_that_is_on_the_disk_outlives_a_power_cut(device: Device) -> None:
    artifact = await device.bundle("settled")
    await device.prepare(artifact)
    await device.installer.settled()
    device.boot = "another"
    device.restart()
    assert await device.output(artifact) == "the answer is 42\n"
    assert await device.prepare(artifact) == []


async def test_environment_whose_python_is_gone_is_made_anew(device: Device) -> None:
    artifact = await device.bundle("headless")
    await device.prepare(artifact)
    (python,) = device.folder.glob("environments/*/bin/python")
    python.unlink()
    assert device.installer.find(artifact) is None
    await device.prepare(artifact)
    assert await device.output(artifact) == "the answer is 42\n"


async def test_bundle_that_is_not_there_is_final_and_a_registry_that_is_away_or_refuses_is_not(device: Device) -> None:
    artifact = await device.bundle("refused")
    missing = await device.refusal(replace(artifact, digest="sha256:" + "1" * 64))
    assert (missing.reason, missing.retryable) == ("ImageNotFound", False)
    away = await device.refusal(replace(artifact, repository=f"127.0.0.1:9/{REPOSITORY}"))
    assert (away.reason, away.retryable) == ("ImagePullFailed", True)
    denied = await device.refusal(replace(artifact, repository=f"{device.link.address}/bob/secret"))
    assert (denied.reason, denied.retryable) == ("ImagePullDenied", True)
    foreign = await device.refusal(replace(artifact, platform="linux/s390x"))
    assert (foreign.reason, foreign.retryable) == ("WrongArchitecture", False)


async def test_python_that_the_device_lacks_is_named() -> None:
    with pytest.raises(BackendError, match=r"needs Python 3\.99, which this device lacks; apt-get install") as caught:
        await find_python("r/a", "3.99")
    assert (caught.value.reason, caught.value.retryable) == ("PythonMissing", True)


async def test_debian_packages_that_the_device_lacks_are_named_before_anything_comes(device: Device) -> None:
    artifact = await device.bundle("apt", packages={"pypi": ["other"], "apt": ["libc6", "longshore-no-such-package"]})
    device.link.reset()
    error = await device.refusal(artifact)
    assert (error.reason, error.retryable) == ("MissingPackages", True)
    assert error.message.endswith("lacks: longshore-no-such-package; apt-get install longshore-no-such-package")
    assert device.link.received < 50_000


async def test_prune_leaves_what_is_kept_and_nothing_else(device: Device) -> None:
    kept = await device.bundle("kept", MAIN + b"\n\n")
    same = await device.bundle("same", MAIN + b"\n\n\n")
    other = await device.bundle("gone", b"print(1)\n", packages={"pypi": ["other==1.0"]})
    for artifact in (kept, same, other):
        await device.prepare(artifact)
    await device.installer.prune(frozenset([kept.digest]))
    assert [device.installer.find(artifact) is not None for artifact in (kept, same, other)] == [True, False, False]
    assert await device.output(kept) == "the answer is 42\n"
    assert len(list((device.folder / "environments").iterdir())) == 1
    cached = {path.name for path in device.folder.glob("caches/uv/archive-v0/*/*.py")}
    assert cached == {"answers.py", "oracle.py"}
    await device.installer.prune(frozenset())
    left = [path for path in device.folder.rglob("*") if path.is_file() and "caches" not in path.parts]
    assert left == []
    assert list(device.folder.glob("caches/uv/archive-v0/*")) == []


async def test_folder_that_cannot_be_written_to_says_so(device: Device) -> None:
    artifact = await device.bundle("readonly")
    device.folder.parent.mkdir(exist_ok=True)
    device.folder.write_text("a file in its place")
    with pytest.raises(BackendUnavailable, match="cannot use") as caught:
        await device.prepare(artifact)
    assert caught.value.reason == "StorageUnavailable"
