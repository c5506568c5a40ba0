"""Logs and uploads of a real controller, as a client meets them: by target, as a whole, and across kills."""

import gzip
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.settings import Builds
from longshore.client import Client, project
from longshore.failures import LongshoreError
from longshore.sources import Source, collect
from longshore.uploads import UploadProgress
from longshore.v1 import build_pb2
from tests.support.building import BASE_CACHE
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.waiting import eventually

PROJECT = project("alice", "records")
# No registry of this name exists: a build of it is tried again and again, and no test waits for it.
SPEC = """\
version: 1
name: digits
build: {base: "registry.invalid/nothing:1"}
deploy: {entrypoint: [serve], network: {ports: [{name: http, container: 8080}]}}
targets: [{profile: x86-cpu}, {profile: odroid-n2}]
"""
MIB = 2**20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), Builds(base_cache=BASE_CACHE)) as made:
        yield made


@pytest.fixture
def client(stack: SyncStack) -> Iterator[Client]:
    with stack.client() as made:
        yield made


def test_a_log_is_read_by_target_followed_to_its_end_and_downloaded(client: Client, tmp_path: Path) -> None:
    (tmp_path / "deployment.yml").write_text(SPEC)
    build = client.build(tmp_path / "deployment.yml", PROJECT)

    def said_by() -> set[str]:
        return {answer.target for answer in client.read_build_log(build.id)}

    eventually(lambda: {"x86-cpu", "odroid-n2"} <= said_by(), seconds=60)
    by_target = list(client.read_build_log(build.id, target="odroid-n2"))
    assert {answer.target for answer in by_target} <= {"odroid-n2", ""}
    client.download_build_log(build.id, tmp_path / "running.gz")
    assert gzip.decompress((tmp_path / "running.gz").read_bytes()).count(b"\n") >= 2
    following = client.read_build_log(build.id, follow=True)
    first = next(following)
    client.cancel_build(build.id)
    lines = [first, *following]
    assert [answer.line.number for answer in lines] == list(range(1, len(lines) + 1))
    assert client.wait_for_build(build.id, timeout=60).ended.seconds > 0

    def kept() -> list[dict[str, object]]:
        client.download_build_log(build.id, tmp_path / "ended.gz")
        return [json.loads(line) for line in gzip.decompress((tmp_path / "ended.gz").read_bytes()).splitlines()]

    now = list(client.read_build_log(build.id))
    assert [(entry["number"], entry["target"], entry["text"]) for entry in kept()] == [
        (answer.line.number, answer.target, answer.line.text) for answer in now
    ]


def test_the_log_of_an_unknown_build_is_not_found(client: Client, tmp_path: Path) -> None:
    with pytest.raises(LongshoreError) as caught:
        client.download_build_log("b-unknown", tmp_path / "log")
    assert caught.value.reason == "NO_SUCH_BUILD"


def test_a_log_that_was_removed_is_said_to_be(client: Client, stack: SyncStack, tmp_path: Path) -> None:
    (tmp_path / "deployment.yml").write_text(SPEC)
    build = client.build(tmp_path / "deployment.yml", PROJECT)
    client.cancel_build(build.id)
    client.wait_for_build(build.id, timeout=60)
    kept = stack.stack.folder.root / "logs" / f"{build.id}.jsonl.gz"
    eventually(kept.exists, seconds=30)
    kept.unlink()
    with pytest.raises(LongshoreError) as caught:
        list(client.read_build_log(build.id))
    assert caught.value.reason == "NO_SUCH_LOG"


UPLOADER = """
import sys
import tarfile
from pathlib import Path
import yaml
from longshore.client import Client
from longshore.sources import collect

context = yaml.safe_load(Path(sys.argv[1]).read_text())
with Client(context["address"], context["token"], context["ca"]) as client:
    client.upload(collect(Path(sys.argv[2]), ["model.bin"]), lambda progress: print(progress.sent_bytes, flush=True))
"""


def written(folder: Path, seed: int) -> Source:
    """A file of 64 MiB that nobody has uploaded."""
    block = bytes([seed]) * 1024 + os.urandom(1024 * 1023)
    (folder / "model.bin").write_bytes(block * 64)
    (source,) = collect(folder, ["model.bin"])
    return source


def state_of(client: Client, source: Source) -> build_pb2.UploadState:
    request = build_pb2.StatUploadsRequest(digests=[source.entry.digest])
    answer = client._call(client._builds.StatUploads, request, build_pb2.StatUploadsResponse)
    (state,) = answer.uploads
    return state


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def test_an_upload_goes_on_where_it_was_after_a_kill_of_the_client_and_of_the_controller(
    stack: SyncStack, tmp_path: Path
) -> None:
    """And the controller does not hold the file in memory."""
    source = written(tmp_path, 1)
    argv = [sys.executable, "-c", UPLOADER, str(stack.context_file), str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as uploader:
        assert uploader.stdout is not None
        for line in uploader.stdout:
            if int(line) > 8 * MIB:
                break
        uploader.send_signal(signal.SIGKILL)
    with stack.client(patience=60) as client:
        before = state_of(client, source).held_bytes
        assert 0 < before < 64 * MIB
        sent: list[int] = []

        def crash_once(progress: UploadProgress) -> None:
            sent.append(progress.sent_bytes)
            if progress.sent_bytes > 8 * MIB and not crashed:
                crashed.append(True)
                stack.crash_controller()
                stack.start_controller()

        crashed: list[bool] = []
        client.upload([source], crash_once)
        assert state_of(client, source).complete
        # What was held was not sent again, but for what was on its way at the kill.
        assert sent[-1] <= 64 * MIB
    assert crashed
    stored = stack.stack.folder.root / "uploads" / "complete"
    name = source.entry.digest.removeprefix("sha256:")
    assert (stored / name[:2] / name).stat().st_size == 64 * MIB
    assert peak_kib(stack.stack.controller.pid) < 400 * 1024


def tarred(folder: Path) -> Path:
    """An archive with the program of a service."""
    (folder / "server.py").write_text("print('ready')\n")
    with tarfile.open(folder / "files.tar.gz", "w:gz") as archive:
        archive.add(folder / "server.py", "app/server.py")
    return folder / "files.tar.gz"


def test_files_come_as_an_archive_and_a_controller_keeps_house_by_itself(stack: SyncStack, tmp_path: Path) -> None:
    """The archive, which no build needs, is removed; the files of a build that has not ended stay."""
    (tmp_path / "deployment.yml").write_text(SPEC.replace('nothing:1"', 'nothing:1", files: [app]'))
    settings = stack.stack.folder.root / "controller.yml"
    before = settings.read_text()
    with stack.client(patience=60) as client:
        build = client.build(tmp_path / "deployment.yml", PROJECT, archive=tarred(tmp_path))
        kept = stack.stack.folder.root / "uploads" / "complete"
        (source,) = collect(tmp_path, ["server.py"])
        (archive,) = collect(tmp_path, ["files.tar.gz"])
        stack.crash_controller()
        settings.write_text(f"{before}housekeeping: {{interval_minutes: 0.01, uploads_days: 0}}\n")
        stack.start_controller()

        def there(entry: Source) -> bool:
            name = entry.entry.digest.removeprefix("sha256:")
            return (kept / name[:2] / name).exists()

        eventually(lambda: not there(archive), seconds=60)
        assert there(source)
        client.cancel_build(build.id)
        client.wait_for_build(build.id, timeout=60)
        eventually(lambda: not there(source), seconds=60)
        stack.crash_controller()
        settings.write_text(before)
        stack.start_controller()
