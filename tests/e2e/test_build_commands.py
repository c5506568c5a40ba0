"""What a person and a program do with builds: the `longshore` command and the Python client, builds by real Podman."""

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.builds.registry import get_manifest
from controller.settings import Builds
from longshore.client import Client
from longshore.v1 import build_pb2
from tests.integration.test_cli_commands import Shell
from tests.support.building import BASE_CACHE, SMALL_BASE
from tests.support.registry import access_to
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("build-commands")]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python.md"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), Builds(base_cache=BASE_CACHE)) as made:
        yield made


@pytest.fixture(scope="module")
def shell(stack: SyncStack) -> Shell:
    return Shell(stack.context_file, "commands")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of two targets, and its file."""
    made = tmp_path_factory.mktemp("spec")
    (made / "server.py").write_text("print('serves')\n")
    write_spec(made, targets=[{"profile": "x86-cpu"}, {"profile": "x86-cpu", "artifact": "bundle"}])
    return made


@pytest.fixture(scope="module")
def built(shell: Shell, folder: Path) -> str:
    """Id of a build that has succeeded."""
    done = shell("build", str(folder), "-o", "json")
    assert "x86-cpu: SUCCEEDED" in done.stderr
    assert "x86-cpu.bundle: SUCCEEDED" in done.stderr
    return str(json.loads(done.stdout)["id"])


def write_spec(folder: Path, **fields: object) -> Path:
    deploy = {"entrypoint": ["python3", "server.py"], "checks": {"readiness": {"command": {"command": ["true"]}}}}
    build = {"base": SMALL_BASE, "files": ["server.py"]}
    spec = {"version": 1, "name": "served", "build": build, "deploy": deploy, "targets": [{"profile": "x86-cpu"}]}
    path = folder / "deployment.yml"
    path.write_text(yaml.safe_dump({**spec, **fields}))
    return path


def test_both_kinds_of_artifacts_come_from_one_request(shell: Shell, built: str) -> None:
    shown = json.loads(shell("builds", built, "-o", "json").stdout)
    targets = {target["key"]: target for target in shown["targets"]}
    kinds = {key: target["artifact"]["kind"] for key, target in targets.items()}
    assert kinds == {"x86-cpu": "ARTIFACT_KIND_IMAGE", "x86-cpu.bundle": "ARTIFACT_KIND_BUNDLE"}
    digest = targets["x86-cpu"]["artifact"]["digest"]
    assert digest in shell("builds", built).stdout
    assert digest in shell("images", "-o", "wide").stdout
    assert digest in shell("images", "-o", "name").stdout


async def test_each_kind_of_artifact_has_a_name_of_its_own(stack: SyncStack, shell: Shell, built: str) -> None:
    targets = {target["key"]: target for target in json.loads(shell("builds", built, "-o", "json").stdout)["targets"]}
    repository, access = targets["x86-cpu"]["artifact"]["repository"], access_to(stack.stack)
    for tag, key in ((built, "x86-cpu"), (f"{built}.x86-cpu.bundle", "x86-cpu.bundle")):
        found = await get_manifest(repository, tag, access)
        assert found is not None
        assert found.digest == targets[key]["artifact"]["digest"]


def test_identical_request_is_answered_with_the_same_digest(shell: Shell, folder: Path, built: str) -> None:
    again = json.loads(shell("build", str(folder), "-o", "json").stdout)
    first = json.loads(shell("builds", built, "-o", "json").stdout)
    assert again["id"] != built
    assert [target["cached_from"] for target in again["targets"]] == [built, built]
    assert [t["artifact"]["digest"] for t in again["targets"]] == [t["artifact"]["digest"] for t in first["targets"]]


def test_log_is_read_by_target_and_from_a_line_and_downloaded_whole(shell: Shell, built: str, tmp_path: Path) -> None:
    lines = shell("build", "logs", built).stdout.splitlines()
    assert any(line.startswith("x86-cpu: STEP 1") for line in lines)
    image = shell("build", "logs", built, "--target", "x86-cpu").stdout.splitlines()
    assert [line for line in lines if line.startswith("x86-cpu: ")] == [f"x86-cpu: {line}" for line in image]
    assert shell("build", "logs", built, "--from", "3").stdout.splitlines() == lines[2:]
    shell("build", "logs", built, "--download", str(tmp_path / "log.gz"))
    stored = [json.loads(line) for line in gzip.decompress((tmp_path / "log.gz").read_bytes()).splitlines()]
    assert len(stored) == len(lines)


def test_context_and_materials_of_a_target_are_fetched(shell: Shell, built: str, tmp_path: Path) -> None:
    shell("build", "context", built, "--target", "x86-cpu", "--output", str(tmp_path / "context"))
    containerfile = (tmp_path / "context" / "Containerfile").read_text()
    assert "server.py" in containerfile or list((tmp_path / "context").rglob("server.py"))
    shell("build", "context", built, "--target", "x86-cpu", "--output", str(tmp_path / "context.tar"))
    with tarfile.open(tmp_path / "context.tar") as tar:
        assert "Containerfile" in [name.removeprefix("./") for name in tar.getnames()]
    document = json.loads(shell("build", "materials", built, "--target", "x86-cpu").stdout)
    assert document["bomFormat"] == "CycloneDX"


def test_build_is_cancelled_in_the_middle_of_a_step(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("")
    build = {"base": SMALL_BASE, "files": ["server.py"], "steps": ["echo begun; sleep 600"]}
    path = write_spec(tmp_path, build=build)
    build_id = shell("build", str(path), "--no-wait", "-o", "name").stdout.strip()
    eventually(lambda: "x86-cpu: begun" in shell("build", "logs", build_id).stdout.splitlines(), seconds=60)
    assert shell("build", "cancel", build_id).stdout == f"build {build_id} is cancelled: CANCELLED\n"
    assert f"{build_id}  served  CANCELLED" in shell("builds").stdout
    assert "had ended before" not in shell("build", "cancel", build_id).stdout


def test_files_come_as_an_archive_and_a_secret_stays_out_of_the_log(shell: Shell, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "files.tar.gz", "w:gz") as tar:
        (tmp_path / "hidden.py").write_text("print('serves')\n")
        tar.add(tmp_path / "hidden.py", "server.py")
    step = 'test -s server.py && test "$(id -u)" = 0 && echo "it is $(cat /run/secrets/token) indeed"'
    build = {"base": SMALL_BASE, "files": ["server.py"], "secrets": ["token"], "steps": [step]}
    path = write_spec(tmp_path, build=build)
    (tmp_path / "token").write_text("5up3r-53cr3t\n")
    done = shell(
        "build", str(path), "--archive", str(tmp_path / "files.tar.gz"), "--secret", f"token={tmp_path / 'token'}", "-F"
    )
    assert re.search(r"^x86-cpu: it is \S+ indeed$", done.stderr, re.MULTILINE)
    assert "5up3r-53cr3t" not in done.stderr + done.stdout


def test_nothing_is_stored_by_a_look_at_what_would_be_built(shell: Shell, folder: Path) -> None:
    before = shell("builds", "-o", "name").stdout
    rendered = json.loads(shell("build", "render", str(folder), "-o", "json").stdout)
    assert [entry["key"] for entry in rendered] == ["x86-cpu", "x86-cpu.bundle"]
    assert shell("build", "render", str(folder), "--target", "x86-cpu").stdout == rendered[0]["text"]
    assert "FROM " in rendered[0]["text"]
    assert shell("builds", "-o", "name").stdout == before


def test_catalogue_is_listed(shell: Shell) -> None:
    assert {"x86-cpu", "arm64-cpu", "jetson-orin"} <= set(shell("targets", "-o", "name").stdout.split())
    assert {"python", "onnx"} <= set(shell("runtimes", "-o", "name").stdout.split())
    paths = shell("form", "-o", "name").stdout.splitlines()
    assert {"name", "build.packages.pypi", "deploy.restart"} <= set(paths)
    below = shell("form", "build.packages", "-o", "name").stdout.splitlines()
    assert below
    assert all(path.startswith("build.packages") for path in below)
    (host,) = json.loads(shell("hosts", "-o", "json").stdout)
    assert "linux/amd64" in host["native_platforms"]


def test_page_of_the_python_client_does_what_it_says(stack: SyncStack, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("print('serves')\n")
    write_spec(tmp_path, name="client")
    context = yaml.safe_load(stack.context_file.read_text())
    names = {"address": context["address"], "token": context["token"], "ca": context["ca"], "folder": tmp_path}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert isinstance(names["client"], Client)
    assert isinstance(names["build"], build_pb2.Build)
    assert (tmp_path / "build.log.gz").exists()
    assert tarfile.is_tarfile(tmp_path / "context.tar")
