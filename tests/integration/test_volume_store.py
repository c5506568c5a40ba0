"""The agent gets versions of project volumes from a real registry, on good days and on bad ones."""

import asyncio
import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds.blobs import push_blob
from controller.builds.model import ContextFile, RegistryAccess
from controller.builds.registry import MANIFEST_TYPE, digest_of, send_manifest
from controller.builds.registry_session import RegistrySession
from controller.volumes.packing import Stored, pack_volume
from edge_agent.runtime.backend import ArtifactDamaged, BackendError, Progress
from edge_agent.runtime.model import ProjectVolume
from edge_agent.runtime.volume_manifest import parse_volume
from edge_agent.runtime.volume_store import VolumeStore
from tests.support.counting_proxy import CountingProxy, counting_proxy
from tests.support.registry import RegistryUnderTest, running_registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
NAME = "alice/vision/volumes/digits"
BASE = {"model/weights.bin": os.urandom(3 * MIB), "tokens.txt": b"0\n1\n", "model/notes": b"Monday\n"}
# Dies as by `kill -9` once so many bytes of what it fetches are on the device.
DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from edge_agent.runtime.model import ProjectVolume
from edge_agent.runtime.volume_store import VolumeStore

folder, repository, digest, size, user, password, authority, dies_at = sys.argv[1:]

async def credentials():
    return user, password

def progress(now):
    if now.fetched_bytes >= int(dies_at):
        os.kill(os.getpid(), signal.SIGKILL)

volume = ProjectVolume("model", "/models", repository, digest, int(size))
asyncio.run(VolumeStore(Path(folder), credentials, Path(authority)).prepare([volume], progress))
"""


@dataclass
class Shop:
    """A registry, and a device behind a link that counts."""

    registry: RegistryUnderTest
    link: CountingProxy
    folder: Path

    async def push(self, contents: Mapping[str, bytes], executable: str = "") -> ProjectVolume:
        """A version with these files."""
        work = self.folder / f"push-{os.urandom(4).hex()}"
        work.mkdir()
        stored = []
        for number, (path, content) in enumerate(contents.items()):
            (work / f"content-{number}").write_bytes(content)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            file = ContextFile(path, digest, len(content), path == executable)
            stored.append(Stored(file, work / f"content-{number}"))
        packed = pack_volume(stored, work)
        access = RegistryAccess(self.registry.address, self.registry.ca_file, self.registry.push_credentials)
        async with RegistrySession(f"{access.address}/{NAME}", access, timeout=None, pushes=True) as session:
            for blob in packed.blobs:
                await push_blob(session, blob)
            await send_manifest(session, digest_of(packed.manifest), packed.manifest, MANIFEST_TYPE)
        size = sum(map(len, contents.values()))
        return ProjectVolume("model", "/models", f"{self.link.address}/{NAME}", digest_of(packed.manifest), size)

    def store(self, folder: Path) -> VolumeStore:
        async def credentials() -> tuple[str, str]:
            return self.registry.device_credentials("device-1")

        return VolumeStore(folder, credentials, self.registry.ca_file)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("volumes")
    async with running_registry(folder / "registry") as registry, counting_proxy(registry.address) as link:
        registry.pullable.add(NAME)
        yield Shop(registry, link, folder)


async def prepare(store: VolumeStore, *volumes: ProjectVolume) -> list[Progress]:
    seen: list[Progress] = []
    await store.prepare(volumes, seen.append)
    return seen


def contents(files: Path) -> dict[str, bytes]:
    found = (path for path in files.rglob("*") if path.is_file())
    return {str(path.relative_to(files)): path.read_bytes() for path in found}


def files_of(store: VolumeStore, volume: ProjectVolume) -> Path:
    ((_, files),) = store.places([volume])
    return files


def used_bytes(folder: Path) -> int:
    """Each file once, by whatever names."""
    found = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


async def test_files_are_there_as_they_were_pushed_and_take_their_room_once(shop: Shop, tmp_path: Path) -> None:
    tool = b"#!/bin/sh\n" + b"#" * MIB
    volume = await shop.push({**BASE, "bin/tool": tool}, executable="bin/tool")
    store = shop.store(tmp_path)
    with pytest.raises(ArtifactDamaged):
        store.places([volume])
    seen = await prepare(store, volume)
    assert seen[-1].total_bytes == volume.size
    files = files_of(store, volume)
    assert contents(files) == {**BASE, "bin/tool": tool}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.rglob("*")}
    assert modes == {
        "model": 0o755, "bin": 0o755, "weights.bin": 0o644, "tokens.txt": 0o644, "notes": 0o644, "tool": 0o755,
    }  # fmt: skip
    # The program twice, since its mode differs from that of its blob.
    assert used_bytes(tmp_path) < volume.size + len(tool) + 20_000
    shop.link.reset()
    assert await prepare(store, volume) == []
    assert shop.link.received == 0


async def test_of_a_new_version_only_what_changed_is_fetched(shop: Shop, tmp_path: Path) -> None:
    store = shop.store(tmp_path)
    first = await shop.push(BASE)
    await prepare(store, first)
    changed = {**BASE, "model/head.bin": os.urandom(2 * MIB), "tokens.txt": b"0\n1\n2\n"}
    second = await shop.push(changed)
    shop.link.reset()
    await prepare(store, second)
    assert 2 * MIB < shop.link.received < 2 * MIB + 100_000
    assert contents(files_of(store, second)) == changed
    assert contents(files_of(store, first)) == BASE

    await store.prune(frozenset({second.digest, "sha256:of-an-image"}))
    with pytest.raises(ArtifactDamaged):
        store.places([first])
    assert contents(files_of(store, second)) == changed
    await store.prune(frozenset())
    assert used_bytes(tmp_path) == 0


async def test_an_agent_that_is_killed_in_the_middle_goes_on_where_it_was(shop: Shop, tmp_path: Path) -> None:
    size = 8 * MIB
    volume = await shop.push({"weights.bin": os.urandom(size)})
    user, password = shop.registry.device_credentials("device-1")
    argv = [str(tmp_path), volume.repository, volume.digest, str(size), user, password]
    argv += [str(shop.registry.ca_file), str(4 * MIB)]
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", DYING, *argv], check=False, timeout=120)
    assert died.returncode == -9
    partial = sum(path.stat().st_size for path in (tmp_path / "blobs/partial").iterdir())
    assert 4 * MIB <= partial < size
    store = shop.store(tmp_path)
    shop.link.reset()
    await prepare(store, volume)
    assert size - partial <= shop.link.received < size - partial + 100_000
    assert len(contents(files_of(store, volume))["weights.bin"]) == size


async def test_what_is_damaged_on_the_device_is_found_and_fetched_again(shop: Shop, tmp_path: Path) -> None:
    store = shop.store(tmp_path)
    volume = await shop.push(BASE)
    await prepare(store, volume)
    os.truncate(files_of(store, volume) / "model/weights.bin", MIB)
    with pytest.raises(ArtifactDamaged):
        store.places([volume])
    await prepare(store, volume)
    assert contents(files_of(store, volume)) == BASE
    (files_of(store, volume) / "tokens.txt").unlink()
    await prepare(store, volume)
    assert contents(files_of(store, volume)) == BASE


async def test_a_description_that_is_damaged_on_the_device_is_fetched_again(shop: Shop, tmp_path: Path) -> None:
    store = shop.store(tmp_path)
    volume = await shop.push(BASE)
    await prepare(store, volume)
    (files_of(store, volume) / "tokens.txt").unlink()
    (config,) = [path for path in (tmp_path / "blobs/sha256").iterdir() if b'"schema":1' in path.read_bytes()]
    config.write_bytes(b"\0" * config.stat().st_size)
    await prepare(store, volume)
    assert contents(files_of(store, volume)) == BASE


async def test_what_is_prepared_while_versions_are_removed_is_whole(shop: Shop, tmp_path: Path) -> None:
    store = shop.store(tmp_path)
    old, new = await shop.push({"old.bin": os.urandom(MIB)}), await shop.push(BASE)
    await prepare(store, old)
    begun, go_on = threading.Event(), threading.Event()
    tidy = store._tidy

    def slowly(kept: frozenset[str]) -> None:
        begun.set()
        assert go_on.wait(60)
        tidy(kept)

    store._tidy = slowly  # type: ignore[method-assign]
    pruning = asyncio.create_task(store.prune(frozenset({new.digest})))
    assert await asyncio.to_thread(begun.wait, 60)
    preparing = asyncio.create_task(prepare(store, new))
    # Long enough for all of it, if it did not wait.
    await asyncio.wait([preparing], timeout=1)
    assert not preparing.done()
    go_on.set()
    await asyncio.gather(pruning, preparing)
    assert contents(files_of(store, new)) == BASE


async def test_one_who_comes_late_with_the_same_version_does_not_take_it_from_its_instances(
    shop: Shop, tmp_path: Path
) -> None:
    store = shop.store(tmp_path)
    volume = await shop.push(BASE)
    await prepare(store, volume)
    files, content = files_of(store, volume), store._blobs.read(volume.digest)
    assert content is not None
    shown = files.stat()
    store._trees.make(volume.digest, parse_volume(volume.reference, content))
    assert os.path.samestat(files_of(store, volume).stat(), shown)
    assert sorted(path.name for path in (tmp_path / "trees").iterdir()) == [volume.digest.removeprefix("sha256:")]


async def test_what_does_not_fit_is_refused_beforehand_with_numbers(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = await shop.push({"weights.bin": os.urandom(5 * MIB)})
    monkeypatch.setattr("edge_agent.runtime.disk.free_bytes", lambda _: 2 * MIB)
    shop.link.reset()
    with pytest.raises(BackendError) as refused:
        await prepare(shop.store(tmp_path), volume)
    assert refused.value.reason == "DiskFull"
    assert "need 5 MiB, free 2 MiB" in refused.value.message
    assert shop.link.received < 100_000


async def test_what_is_no_volume_is_refused_for_good(shop: Shop, tmp_path: Path) -> None:
    lost = ProjectVolume("model", "/models", f"{shop.link.address}/{NAME}", f"sha256:{'0' * 64}", 1)
    with pytest.raises(BackendError) as refused:
        await prepare(shop.store(tmp_path), lost)
    assert (refused.value.reason, refused.value.retryable) == ("ImageNotFound", False)
