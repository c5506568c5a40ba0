"""Bundles: resolved, packed, pushed to a real registry, and installed from there without a network."""

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from packaging.requirements import Requirement

from controller.builds import host
from controller.builds.bundles import builder as bundle_builder
from controller.builds.bundles.builder import BundleBuilder
from controller.builds.bundles.description import ARTIFACT_TYPE, CONFIG_TYPE
from controller.builds.bundles.packing import FILES_TYPE, TITLE, WHEEL_TYPE
from controller.builds.model import ArtifactKind, BuildFailed, BuildResult, BuildState, TargetJob
from controller.builds.origin import origin
from controller.builds.referrers import referrers
from controller.builds.registry import has_manifest
from controller.builds.settings import BuilderSettings
from controller.spec.deploy_model import DeploySpec
from controller.spec.runtimes import load_runtimes, runtime_file
from tests.support.bundling import BundleShop, open_bundle_shop
from tests.support.wheel_index import PASSWORD, wheel

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHEELS = dict(
    [
        wheel("answers", "1.0", code="from oracle import ANSWER\n", needs=("oracle",)),
        wheel("oracle", "2.0", code="ANSWER = 42\n", noise=200_000),
        wheel("oracle", "1.0", code="ANSWER = 41\n"),
        wheel("native", "1.0", tag="cp311-cp311-manylinux_2_28_aarch64"),
        wheel("native", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64"),
        wheel("native", "1.0", tag="py3-none-any", code="SLOW = True\n"),
        wheel("elsewhere", "1.0", tag="cp311-cp311-win_amd64"),
        ("sourceonly-1.0.tar.gz", b"no archive at all"),
        wheel("contrary", "1.0", needs=("oracle<2",)),
    ]
)
SPEC = {"packages": {"pypi": ["answers==1.0", "oracle==2.0"]}}
MAIN = b"import answers\nprint('the answer is', answers.ANSWER)\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BundleShop]:
    async with open_bundle_shop(tmp_path_factory.mktemp("bundles"), WHEELS) as made:
        yield made


async def pulled(shop: BundleShop, result: BuildResult, folder: Path) -> dict[str, object]:
    """Unpacks a bundle as a device does, into `wheels/`, `files/` and `runtime/`; its description."""
    assert result.artifact is not None
    manifest = await shop.manifest(result)
    repository = result.artifact.repository
    assert (manifest["artifactType"], manifest["config"]["mediaType"]) == (ARTIFACT_TYPE, CONFIG_TYPE)
    (folder / "wheels").mkdir(parents=True)
    for layer in manifest["layers"]:
        content = await shop.blob(repository, layer["digest"])
        if layer["mediaType"] == WHEEL_TYPE:
            (folder / "wheels" / layer["annotations"][TITLE]).write_bytes(content)
        else:
            assert layer["mediaType"] == FILES_TYPE
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(folder, filter="data")
    return dict(json.loads(await shop.blob(repository, manifest["config"]["digest"])))


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def output_of(argv: list[str], folder: Path) -> str:
    """What a program prints, with this Python before all others."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(argv, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def install(folder: Path, lock: str) -> None:
    """As docs/design/bundles.md tells a device to."""
    (folder / "requirements.lock").write_text(lock)
    uv = str(host.uv_program(BuilderSettings()))
    install_options = ["--offline", "--no-index", "--find-links", str(folder / "wheels"), "--require-hashes"]
    for argv in (
        [uv, "venv", "-q", "--python", sys.executable, str(folder / "environment")],
        [uv, "pip", "install", "-q", "--python", str(folder / "environment/bin/python"), "--no-cache",
         *install_options, "-r", str(folder / "requirements.lock")],
    ):  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True, text=True)


async def test_a_pulled_bundle_installs_offline_and_answers(shop: BundleShop, tmp_path: Path) -> None:
    file = await shop.upload("main.py", MAIN)
    job = shop.job("b-install", SPEC, [file])
    result = await shop.build(job)
    assert result.artifact is not None
    assert (result.artifact.kind, result.artifact.platform) == (ArtifactKind.BUNDLE, "linux/amd64")
    assert shop.states == [BuildState.PREPARING, BuildState.BUILDING, BuildState.PUSHING]
    annotations = (await shop.manifest(result))["annotations"]
    assert origin(job.spec, job.deploy, job.files).items() <= annotations.items()
    assert (annotations["dev.longshore.user"], annotations["dev.longshore.project"]) == ("alice", "vision")
    description = await pulled(shop, result, tmp_path)
    await asyncio.to_thread(install, tmp_path, str(description["lock"]))
    answer = await asyncio.to_thread(output_of, [f"{tmp_path}/environment/bin/python", "main.py"], tmp_path / "files")
    assert answer == "the answer is 42\n"
    assert description["entrypoint"] == ["python", "main.py"]
    assert shop.leftovers() == []


async def test_the_materials_of_a_bundle_are_its_wheels_by_hash_and_attached_to_it(shop: BundleShop) -> None:
    result = await shop.build(shop.job("b-materials", SPEC))
    assert result.artifact is not None
    components = {part["name"]: part for part in json.loads(result.sbom)["components"]}
    assert components["oracle"]["purl"] == "pkg:pypi/oracle@2.0"
    assert components["oracle"]["licenses"] == [{"license": {"name": "MIT"}}]
    assert len(components["answers"]["hashes"][0]["content"]) == 64
    (referrer,) = await referrers(result.artifact.repository, result.artifact.digest, shop.access)
    assert referrer["artifactType"] == "application/vnd.cyclonedx+json"


async def test_the_same_inputs_give_the_same_digest_on_two_machines(shop: BundleShop) -> None:
    files = [await shop.upload("main.py", MAIN), await shop.upload("data/a.txt", b"a")]
    first = await shop.build(shop.job("b-here", SPEC, files))
    second = await shop.build(shop.job("b-there", SPEC, files[::-1]), shop.another("there"))
    assert first.artifact is not None
    assert second.artifact is not None
    assert first.artifact.digest == second.artifact.digest
    assert first.sbom == second.sbom
    assert first.notes == ()


async def test_a_change_of_code_sends_the_code_and_nothing_else(shop: BundleShop) -> None:
    job = shop.job("b-before", SPEC, [await shop.upload("main.py", MAIN)])
    before = await shop.manifest(await shop.build(job))
    shop.index.asked.clear()
    changed = replace(job, build_id="b-after", files=(await shop.upload("main.py", MAIN + b"\n"),))
    after = await shop.manifest(await shop.build(changed))
    known = {layer["digest"] for layer in before["layers"]}
    (code,) = [layer for layer in after["layers"] if layer["digest"] not in known]
    assert code["mediaType"] == FILES_TYPE
    # The description does not name the code, so it is there as well.
    assert after["config"] == before["config"]
    assert f"{code['size']} bytes sent" in shop.lines[-1]
    assert not shop.index.asked


async def test_bundles_share_the_wheels_that_they_have_in_common(shop: BundleShop) -> None:
    await shop.build(shop.job("b-one", SPEC))
    both = {"packages": {"pypi": ["answers==1.0", "oracle==2.0", "native==1.0"]}}
    two = await shop.manifest(await shop.build(shop.job("b-two", both)))
    names = [layer["annotations"][TITLE] for layer in two["layers"]]
    assert names == ["answers-1.0-py3-none-any.whl", "native-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
                     "oracle-2.0-py3-none-any.whl"]  # fmt: skip
    native = two["layers"][1]["size"]
    assert f"{native + two['config']['size']} bytes sent" in shop.lines[-1]


async def test_wheels_are_those_of_the_targets_platform(shop: BundleShop) -> None:
    spec = {"packages": {"pypi": ["native"], "apt": ["libgomp1"]}}
    result = await shop.build(shop.job("b-arm", spec, profile="arm64-cpu"))
    manifest = await shop.manifest(result)
    assert [layer["annotations"][TITLE] for layer in manifest["layers"]] == [
        "native-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    ]
    assert result.artifact is not None
    description = json.loads(await shop.blob(result.artifact.repository, manifest["config"]["digest"]))
    assert (description["platform"], description["packages"]) == ("linux/arm64", {"apt": ["libgomp1"]})
    assert [note for note in result.notes if "native" in note]
    assert "the device has to have these Debian packages: libgomp1" in result.notes


async def failure_of(shop: BundleShop, job: TargetJob, access: object = None) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        await shop.build(job)
    assert shop.leftovers() == []
    return caught.value


@pytest.mark.parametrize(
    ("packages", "reason", "named"),
    [
        (["sourceonly"], "SourceOnly", "sourceonly"),
        (["sourceonly==1.0"], "SourceOnly", "sourceonly"),
        (["elsewhere"], "SourceOnly", "elsewhere"),
        (["nobody-has-this"], "PackageNotFound", "nobody-has-this"),
        (["oracle==9.9"], "PackageNotFound", "oracle==9.9"),
        (["contrary", "oracle==2.0"], "PackageConflict", "exclude each other"),
    ],
)
async def test_packages_that_cannot_be_had_fail_with_the_reason_and_the_name(
    shop: BundleShop, packages: list[str], reason: str, named: str
) -> None:
    failure = await failure_of(shop, shop.job("b-fails", {"packages": {"pypi": packages}}))
    assert (failure.reason, failure.retryable) == (reason, False), failure.last_lines
    assert named in failure.message


async def test_a_target_whose_wheels_nobody_can_resolve_says_so(shop: BundleShop) -> None:
    failure = await failure_of(shop, shop.job("b-armv7", SPEC, profile="armv7-cpu"))
    assert failure.reason == "NoWheelsForTarget"
    without = await shop.build(shop.job("b-armv7-code", {}, [await shop.upload("main.py", b"")], profile="armv7-cpu"))
    assert without.artifact is not None


async def test_an_index_that_sends_something_else_is_not_believed(shop: BundleShop) -> None:
    name, content = wheel("liar", "1.0")
    shop.index.files[name] = content
    shop.index.lies.add(name)
    failure = await failure_of(shop, shop.job("b-liar", {"packages": {"pypi": ["liar"]}}))
    assert (failure.reason, failure.retryable) == ("PackageIndexUnreachable", True)
    assert "its content is not what the index announced" in failure.message


async def test_an_index_that_does_not_answer_is_tried_again(shop: BundleShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    failure = await failure_of(shop, shop.job("b-noindex", {"packages": {"pypi": ["unheard-of"]}}))
    assert (failure.reason, failure.retryable) == ("PackageIndexUnreachable", True)


async def test_a_registry_that_is_down_is_tried_again_and_one_that_refuses_is_not(shop: BundleShop) -> None:
    down = shop.another("down", replace(shop.access, address="127.0.0.1:9"))
    with pytest.raises(BuildFailed) as caught:
        await shop.build(shop.job("b-down", {}, repository="127.0.0.1:9/alice/digits"), down)
    assert (caught.value.reason, caught.value.retryable) == ("RegistryUnreachable", True)
    stranger = shop.another("stranger", replace(shop.access, credentials=lambda: ("nobody", "wrong")))
    with pytest.raises(BuildFailed) as caught:
        await shop.build(shop.job("b-stranger", {}), stranger)
    assert (caught.value.reason, caught.value.retryable) == ("RegistryRefused", False)
    assert shop.leftovers() == []


async def test_what_is_pushed_is_told_although_the_build_fails_then(
    shop: BundleShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise BuildFailed("RegistryUnreachable", "the registry is away")

    monkeypatch.setattr(bundle_builder, "attach", broken)
    told: list[tuple[str, str, str, str]] = []
    builder = BundleBuilder(shop.folder / "told", shop.uploads, shop.access, on_pushed=lambda *what: told.append(what))
    job = shop.job("b-told", {})
    with pytest.raises(BuildFailed):
        await shop.build(job, builder)
    ((user, project, repository, digest),) = told
    assert (user, project, repository) == (job.user_id, job.project_id, job.repository)
    assert await has_manifest(repository, digest, shop.access)


async def test_a_cancel_at_any_moment_leaves_nothing(shop: BundleShop) -> None:
    files = [await shop.upload("main.py", MAIN)]
    for number, delay in enumerate((0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6)):
        builder = shop.another(f"cancelled-{number}")
        task = asyncio.create_task(shop.build(shop.job(f"b-cancel-{number}", SPEC, files), builder))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        assert shop.leftovers() == []
    assert [words for words in await asyncio.to_thread(command_lines) if f"{shop.folder}/cancelled" in words] == []


async def test_a_runtime_brings_its_packages_and_its_files(shop: BundleShop, tmp_path: Path) -> None:
    runtime = load_runtimes()["onnx"]
    for requirement in runtime.packages.pypi:
        parsed = Requirement(requirement)
        (lowest,) = [part.version for part in parsed.specifier if part.operator == ">="]
        shop.index.files.update([wheel(parsed.name, f"{lowest}.7")])
    model = await shop.upload("model/digits.onnx", b"model")
    spec = {"runtime": {"kind": "onnx", "path": "model/digits.onnx"}}
    description = await pulled(shop, await shop.build(shop.job("b-onnx", spec, [model])), tmp_path)
    for name in runtime.files:
        assert (tmp_path / "runtime" / name).read_bytes() == runtime_file("onnx", name)
    assert (tmp_path / "files/model/digits.onnx").read_bytes() == b"model"
    assert "onnxruntime==" in str(description["lock"])
    assert description["places"] == {"/app": "files", "/opt/longshore/runtime": "runtime", "/opt/venv": "environment"}


async def test_without_push_nothing_is_sent(shop: BundleShop) -> None:
    result = await shop.build(shop.job("b-dry", {**SPEC, "push": False}))
    assert result.artifact is None
    assert json.loads(result.sbom)["components"]
    assert shop.states == [BuildState.PREPARING, BuildState.BUILDING]


async def test_pre_exec_runs_before_the_entrypoint(shop: BundleShop, tmp_path: Path) -> None:
    deploy = DeploySpec(entrypoint=["python", "main.py"], pre_exec=[["python", "-c", "print(1)"]])
    job = shop.job("b-pre", {}, [await shop.upload("main.py", b"print(2)\n")], deploy=deploy)
    description = await pulled(shop, await shop.build(job), tmp_path)
    words = [sys.executable if word == "python" else word for word in map(str, list(description["entrypoint"]))]  # type: ignore[call-overload]
    assert await asyncio.to_thread(output_of, words, tmp_path / "files") == "1\n2\n"


async def test_the_password_of_an_index_is_used_and_is_seen_nowhere(tmp_path: Path) -> None:
    async with open_bundle_shop(tmp_path, WHEELS, private=True) as private:
        result = await private.build(private.job("b-private", SPEC))
        manifest = json.dumps(await private.manifest(result))
        assert result.artifact is not None
        config = json.loads(manifest)["config"]["digest"]
        description = await private.blob(result.artifact.repository, config)
        everything = " ".join([*private.lines, manifest, description.decode(), result.sbom.decode()])
        assert PASSWORD not in everything
        assert private.index.asked["oracle-2.0-py3-none-any.whl"] == 1
