"""One request for two architectures, built by real Podman; a device of each pulls the tag and gets its own image."""

import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.builds.credentials import RegistryFiles
from controller.builds.emulation import own_architecture
from controller.builds.model import RegistryAccess
from controller.builds.origin import LONG_AGO, REVISION
from controller.builds.podman import Podman
from controller.builds.recovery import close
from controller.builds.registry import read_manifest
from controller.settings import Builds
from controller.spec.build_rules import CREATED
from tests.integration.test_cli_commands import Shell
from tests.support.building import BASE_CACHE, SMALL_BASE
from tests.support.registry import access_to
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.podman, pytest.mark.xdist_group("joined-images"),
    pytest.mark.skipif(own_architecture() != "amd64", reason="takes arm64 for a foreign architecture"),
]  # fmt: skip

SPEC = {
    "version": 1, "name": "served", "build": {"base": SMALL_BASE, "files": ["server.sh"], "tags": ["v1"]},
    "deploy": {"entrypoint": ["sh", "server.sh"], "checks": {"readiness": {"command": {"command": ["true"]}}}},
    "targets": [{"profile": "x86-cpu"}, {"profile": "arm64-cpu"}, {"profile": "x86-cpu", "artifact": "bundle"}],
}  # fmt: skip
# e_machine of an ELF file.
MACHINES = {"amd64": 62, "arm64": 183}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), Builds(base_cache=BASE_CACHE)) as made:
        yield made


@asynccontextmanager
async def device(folder: Path, access: RegistryAccess) -> AsyncIterator[tuple[Podman, tuple[str, ...]]]:
    """A storage with nothing in it, and the options with which it pulls."""
    podman = Podman(folder / "podman")
    podman.prepare()
    try:
        yield podman, await RegistryFiles(folder, access).options()
    finally:
        close(podman)


def ended(shell: Shell, build_id: str) -> Any:
    """The build once it has ended: where no base is kept, two are made first."""
    shown: Any = {}

    def has_ended() -> bool:
        shown.update(json.loads(shell("builds", build_id, "-o", "json").stdout))
        return "ended" in shown

    eventually(has_ended, seconds=240)
    return shown


async def output(podman: Podman, *arguments: str) -> str:
    done = await podman.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_the_tag_of_a_request_gives_each_architecture_its_image(stack: SyncStack, tmp_path: Path) -> None:
    (tmp_path / "server.sh").write_text("sleep 1000000\n")
    (tmp_path / "deployment.yml").write_text(yaml.safe_dump(SPEC))
    shell = Shell(stack.context_file, "joined")
    built = ended(shell, shell("build", str(tmp_path), "--no-wait", "-o", "name").stdout.strip())
    assert built["state"] == "BUILD_STATE_SUCCEEDED", built
    targets = {target["key"]: target for target in built["targets"]}
    assert [note for target in targets.values() for note in target.get("notes", []) if "emulated" in note] == []
    index = f"{built['image_index']['repository']}@{built['image_index']['digest']}"
    for architecture, key in (("amd64", "x86-cpu"), ("arm64", "arm64-cpu")):
        digest = targets[key]["artifact"]["digest"]
        (tmp_path / key).mkdir()
        async with device(tmp_path / key, access_to(stack.stack)) as (podman, options):
            for name in (f"{built['image_index']['repository']}:v1", index):
                await output(podman, "pull", "-q", "--platform", f"linux/{architecture}", *options, name)
                (image,) = json.loads(await output(podman, "image", "inspect", name))
                assert (image["Architecture"], image["Os"]) == (architecture, "linux")
                assert any(place.endswith(f"@{digest}") for place in image["RepoDigests"])
            mounted = Path(await output(podman, "image", "mount", index))
            assert machine_of((mounted / "bin/sh").resolve()) == MACHINES[architecture]
            assert (mounted / "app/server.sh").read_text() == "sleep 1000000\n"
            await output(podman, "image", "unmount", index)
    await same_origin(built, access_to(stack.stack))
    shown = json.loads(shell("images", "-o", "json").stdout)
    assert {image.get("target", ""): image.get("tags", []) for image in shown} == {
        "": ["v1"], "x86-cpu": [], "arm64-cpu": [], "x86-cpu.bundle": ["v1.x86-cpu.bundle"]
    }  # fmt: skip


async def same_origin(built: Any, access: RegistryAccess) -> None:
    """All artifacts of the request say the same of their inputs."""
    said = set()
    for artifact in (built["image_index"], *(target["artifact"] for target in built["targets"])):
        manifest = await read_manifest(artifact["repository"], artifact["digest"], access)
        annotations = json.loads(manifest.body)["annotations"]
        said.add(tuple(annotations.get(key) for key in (REVISION, CREATED, "dev.longshore.project")))
    ((revision, created, project),) = said
    assert (revision[:7], created, project) == ("sha256:", LONG_AGO, "joined")


def machine_of(program: Path) -> int:
    (machine,) = struct.unpack_from("<H", program.read_bytes(), 18)
    return int(machine)
