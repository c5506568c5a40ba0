"""What a request can say about an image, seen in images that real Podman built."""

import io
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from controller.builds.context_archive import archive, folder_entries
from controller.builds.layers import LARGE_BYTES
from controller.builds.model import BuildFailed, TargetJob
from controller.builds.targets import load_profiles
from controller.spec.deploy_model import DeploySpec
from tests.support.building import SMALL_BASE, Workshop, open_workshop

# One storage for all: the base is imported once, and the stand-ins' base is built once.
pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("image-options")]

NASTY = "a \"b\" 'c' $HOME ${PATH} `id` $(id) \\ # ; && | é [x] --mount=type=tmpfs"
# A program that only says what it was asked for, in place of one that needs an index of its own.
STAND_IN = 'printf \'#!/bin/sh\\nprintf "%%s\\\\n" "$@" > /srv/apk\\n\' > /usr/bin/apk; chmod +x /usr/bin/apk'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("options")) as workshop:
        stand_ins = workshop.job("standins", {"base": SMALL_BASE, "steps": [STAND_IN]})
        await workshop.build(stand_ins)
        yield workshop


@pytest.fixture
def workshop(module_workshop: Workshop) -> Iterator[Workshop]:
    module_workshop.lines.clear()
    yield module_workshop
    assert module_workshop.leftovers() == []


def run(workshop: Workshop, build_id: str, *command: str) -> str:
    """What a command prints in a container of the image, as its user."""
    image = f"localhost/longshore/build/x86-cpu:{build_id}"
    options = ("--rm", "--network", "host", "--pids-limit", "0", "--entrypoint", command[0])
    return workshop.podman("run", *options, image, *command[1:])


async def failure_of(workshop: Workshop, job: TargetJob) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await workshop.build(job)
    return caught.value


async def test_an_image_has_all_that_the_request_says(workshop: Workshop, tmp_path: Path) -> None:
    files = [await workshop.upload("serve.sh", b"#!/bin/sh\ncat warm\n", executable=True)]
    spec = {
        "base": SMALL_BASE,
        "steps": [f"printf %s {quoted(NASTY)} > typed; id -un > who", "sha256sum < /run/secrets/token > seen"],
        "secrets": ["token"],
        "environment": {"NASTY": NASTY},
        "labels": {"team/x": NASTY},
        "volumes": ["/data", "/var/my cache $x"],
        "minimum": {"cpu": 2},
    }
    deploy = {"pre_exec": [["sh", "-c", "echo $1 > /data/warm", "x", "it's warm"]], "entrypoint": ["./serve.sh"]}
    secret = b"t0kenOfTheUser"
    job = workshop.job("said", spec, files, deploy=DeploySpec.model_validate(deploy), secrets={"token": secret})
    await workshop.build(job)
    config = workshop.podman_json("inspect", "localhost/longshore/build/x86-cpu:said")[0]["Config"]
    assert config["Labels"]["team/x"] == NASTY
    assert config["Labels"]["dev.longshore.minimum.cpu"] == "2"
    assert set(config["Volumes"]) == {"/data", "/var/my cache $x"}
    assert config["Entrypoint"][-1] == "./serve.sh"
    assert run(workshop, "said", "cat", "typed", "who") == f"{NASTY}root\n"
    # A step sees the secret; the image does not have it, and the service cannot become root.
    assert len(run(workshop, "said", "cat", "seen").split()[0]) == 64
    assert (
        run(workshop, "said", "sh", "-c", "ls -A /run/secrets; command -v sudo; id -u; touch /data/x; echo ok")
        == "1000\nok\n"
    )
    saved = tmp_path / "image.tar"
    workshop.podman("save", "--format", "docker-archive", "-o", str(saved), "localhost/longshore/build/x86-cpu:said")
    assert secret not in saved.read_bytes()
    assert not any(secret.decode() in line for line in workshop.output())


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


async def test_commands_before_the_entrypoint_have_run_when_it_starts(workshop: Workshop) -> None:
    deploy = {"pre_exec": [["sh", "-c", "echo $0 > /tmp/warm", "it's warm"]], "entrypoint": ["cat", "/tmp/warm"]}
    await workshop.build(workshop.job("before", {"base": SMALL_BASE}, deploy=DeploySpec.model_validate(deploy)))
    image = "localhost/longshore/build/x86-cpu:before"
    assert workshop.podman("run", "--rm", "--network", "host", "--pids-limit", "0", image) == "it's warm\n"


async def test_root_is_given_with_sudo_where_it_is_asked_for(workshop: Workshop) -> None:
    await workshop.build(workshop.job("root", {"base": SMALL_BASE, "allow_root": True}))
    assert run(workshop, "root", "sudo", "id", "-u") == "0\n"
    assert run(workshop, "root", "id", "-u") == "0\n"


async def test_sudo_that_a_step_brings_is_taken_away_again(workshop: Workshop) -> None:
    step = "cp /bin/true /usr/bin/sudo && chmod u+s /usr/bin/sudo"
    await workshop.build(workshop.job("nosudo", {"base": SMALL_BASE, "steps": [step]}))
    assert run(workshop, "nosudo", "sh", "-c", "command -v sudo || echo none") == "none\n"


async def test_ten_thousand_packages_reach_the_package_manager(workshop: Workshop) -> None:
    base = f"{workshop.registry.address}/alice/digits:standins"
    names = [f"package-number-{number}" for number in range(10_000)]
    await workshop.build(workshop.job("many", {"base": base, "packages": {"apk": names}}))
    assert run(workshop, "many", "cat", "/srv/apk").split()[-10_000:] == names
    # Nothing of the lists and the caches is in a layer.
    assert run(workshop, "many", "sh", "-c", "ls -d /run/longshore* /var/cache/longshore || echo none").endswith(
        "none\n"
    )


async def test_another_list_of_as_many_packages_is_installed_anew(workshop: Workshop) -> None:
    base = f"{workshop.registry.address}/alice/digits:standins"
    for name in ("first", "other"):
        await workshop.build(workshop.job(f"list-{name}", {"base": base, "packages": {"apk": [name]}}))
        assert run(workshop, f"list-{name}", "cat", "/srv/apk").split()[-1] == name


async def test_packages_of_a_manager_that_the_base_lacks_are_said_so(workshop: Workshop) -> None:
    failure = await failure_of(workshop, workshop.job("lacks", {"base": SMALL_BASE, "packages": {"dnf": ["curl"]}}))
    assert (failure.reason, failure.retryable) == ("BaseUnsuitable", False)
    assert "list its packages under build.packages.apt" in failure.message
    assert failure.step == "RUN dnf install (1 package)"


async def test_a_large_file_is_a_layer_that_a_change_of_code_leaves_alone(workshop: Workshop) -> None:
    model = await workshop.upload("model/weights.bin", b"\0" * LARGE_BYTES)
    layers = []
    for version in (1, 2):
        code = await workshop.upload("model/code.py", f"VERSION = {version}\n".encode())
        await workshop.build(workshop.job(f"large{version}", {"base": SMALL_BASE}, [model, code]))
        found = workshop.podman_json("inspect", f"localhost/longshore/build/x86-cpu:large{version}")
        layers.append(found[0]["RootFS"]["Layers"])
    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]
    assert run(workshop, "large2", "sh", "-c", "ls model; stat -c %u:%a model model/weights.bin").split() == [
        "code.py", "weights.bin", "1000:755", "1000:644",
    ]  # fmt: skip


async def test_a_step_is_run_again_where_no_layer_may_be_taken(workshop: Workshop) -> None:
    job = workshop.job("anew-0", {"base": SMALL_BASE, "steps": ["cat /proc/sys/kernel/random/uuid > drawn"]})
    drawn = []
    for number, no_cache in enumerate((False, False, True)):
        await workshop.build(replace(job, build_id=f"anew-{number}", no_cache=no_cache))
        drawn.append(run(workshop, f"anew-{number}", "cat", "drawn"))
    assert drawn[0] == drawn[1] != drawn[2]


async def test_packages_that_were_fetched_once_are_not_fetched_again(workshop: Workshop) -> None:
    for number, names in enumerate((["hello"], ["hello:amd64"])):
        workshop.lines.clear()
        await workshop.build(workshop.job(f"kept{number}", {"base": SMALL_BASE, "packages": {"apt": names}}))
    assert any("Need to get 0 B/" in line for line in workshop.output())


@pytest.mark.parametrize("profile", ["x86-cpu", pytest.param("arm64-cpu", marks=pytest.mark.slow)])
async def test_podman_build_by_hand_on_the_downloaded_context_gives_the_same_image(
    workshop: Workshop, tmp_path: Path, profile: str
) -> None:
    files = [
        await workshop.upload("run me.sh", b"#!/bin/sh\n", executable=True),
        await workshop.upload("model/weights.bin", b"\1" * LARGE_BYTES),
    ]
    spec = {"base": SMALL_BASE, "packages": {"apt": ["hello"]}, "steps": ["hello > greeting"]}
    job = workshop.job("byours", spec, files, profile=profile)
    await workshop.build(job)
    await unpack(job, workshop, tmp_path / "context")
    base = next(line.split()[-1] for line in workshop.output() if line.startswith("STEP 1/"))
    workshop.podman(
        "build", "--no-cache", "--from", base, "--layers", "--timestamp", "0", "--network", "host", "--pull=never",
        "--platform", load_profiles()[profile].platform, "--tag", "byhand", str(tmp_path / "context"),
    )  # fmt: skip
    ours = workshop.podman_json("inspect", f"localhost/longshore/build/{profile}:byours")[0]
    hand = workshop.podman_json("inspect", "byhand")[0]
    assert hand["RootFS"]["Layers"] == ours["RootFS"]["Layers"]
    assert hand["Config"] == ours["Config"]
    assert hand["Id"] == ours["Id"]
    workshop.podman("untag", "byhand")
    shutil.rmtree(workshop.builder.podman.temporary / "buildah-cache", ignore_errors=True)


async def unpack(job: TargetJob, workshop: Workshop, folder: Path) -> None:
    async with workshop.builder.context(job) as context:
        content = b"".join(archive(folder_entries(context)))
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        opened.extractall(folder, filter="data")


async def test_a_base_without_python_gets_one_for_python_packages(workshop: Workshop) -> None:
    await workshop.build(workshop.job("pythonless", {"base": SMALL_BASE, "packages": {"pypi": ["six"]}}))
    assert run(workshop, "pythonless", "python3", "-c", "import six; print(six.__name__)") == "six\n"
