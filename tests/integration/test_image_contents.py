"""What can be told of an image that was built: the same digest on every machine, annotations, and what is in it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from controller.builds.model import BuildResult, RegistryAccess, TargetJob
from controller.builds.origin import origin
from controller.builds.referrers import referrers
from controller.builds.registry import read_manifest
from tests.support.building import Workshop, builder_in, open_workshop
from tests.support.trust import trusted_too
from tests.support.wheel_index import WheelIndex, running_wheel_index, wheel

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]

WHEELS = dict([wheel("answers", "1.0", needs=("oracle",)), wheel("oracle", "2.0"), wheel("oracle", "1.0")])
LABELS = {
    "org.opencontainers.image.source": "https://git.example/digits?a=b c",
    "org.opencontainers.image.revision": "4f1c2d",
    "org.opencontainers.image.created": "2024-05-01T12:00:00Z",
}
# Of a real distribution and of a real index too: packages with scripts, compiled modules and much byte code.
PACKAGES = {"apt": ["hello"], "pypi": ["answers==1.0", "oracle==2.0", "numpy==2.2.6"]}
SPEC = {"packages": PACKAGES, "labels": LABELS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workshop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Workshop]:
    async with open_workshop(tmp_path_factory.mktemp("contents")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WheelIndex]:
    async with running_wheel_index(tmp_path_factory.mktemp("index"), WHEELS) as running:
        yield running


def access_of(workshop: Workshop) -> RegistryAccess:
    return RegistryAccess(workshop.registry.address, workshop.registry.ca_file, workshop.registry.push_credentials)


async def on_two_machines(workshop: Workshop, index: WheelIndex, job: TargetJob) -> list[BuildResult]:
    """Results of the same job from two builders that share nothing but where bases come from."""
    results = []
    for name in ("first", "second"):
        folder = workshop.folder / name
        trusted = trusted_too(index.ca_file, folder)
        builder = builder_in(folder, access_of(workshop), workshop.uploads, ca_bundle=trusted)
        await builder.recover()
        try:
            results.append(await builder.build(job, lambda *line: workshop.lines.append(line), lambda _: None))
        finally:
            await builder.close()
    return results


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(workshop: Workshop, index: WheelIndex) -> list[BuildResult]:
    files = [await workshop.upload("server.py", b"print(1)\n")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_INDEX", index.url)
        patch.setenv("no_proxy", "127.0.0.1")
        return await on_two_machines(workshop, index, workshop.job("b-1", SPEC, files))


async def manifest_of(workshop: Workshop, result: BuildResult) -> dict[str, Any]:
    assert result.artifact is not None
    manifest = await read_manifest(result.artifact.repository, result.artifact.digest, access_of(workshop))
    return dict(json.loads(manifest.body))


async def test_the_same_inputs_give_the_same_digest_on_two_machines(
    workshop: Workshop, results: list[BuildResult]
) -> None:
    first, second = [await manifest_of(workshop, result) for result in results]
    assert first == second
    assert results[0].artifact == results[1].artifact
    assert results[0].sbom == results[1].sbom


async def test_the_manifest_says_where_the_image_is_from(workshop: Workshop, results: list[BuildResult]) -> None:
    annotations = (await manifest_of(workshop, results[0]))["annotations"]
    assert LABELS.items() <= annotations.items()
    assert annotations["org.opencontainers.image.title"] == "digits"
    assert annotations["dev.longshore.project"] == "vision"
    assert annotations["dev.longshore.user"] == "alice"
    assert annotations["org.opencontainers.image.base.name"].endswith("python:3.11-slim-bookworm")


async def test_what_is_said_of_the_inputs_is_said_by_every_image_and_is_in_no_layer(
    workshop: Workshop, results: list[BuildResult]
) -> None:
    assert results[0].artifact is not None
    base = {"base": f"{results[0].artifact.repository}:b-1"}
    manifests = []
    for build_id, spec in (("b-silent", base), ("b-telling", {**base, "labels": LABELS})):
        job = workshop.job(build_id, spec, [await workshop.upload("server.py", b"print(1)\n")])
        result = await workshop.builder.build(job, lambda *line: workshop.lines.append(line), lambda _: None)
        manifests.append(manifest := await manifest_of(workshop, result))
        (image,) = workshop.podman_json("image", "inspect", f"localhost/longshore/build/x86-cpu:{build_id}")
        wanted = origin(job.spec, job.deploy, job.files)
        assert wanted.items() <= manifest["annotations"].items()
        assert wanted.items() <= image["Labels"].items()
    silent, telling = manifests
    assert silent["annotations"]["org.opencontainers.image.revision"].startswith("sha256:")
    assert silent["annotations"]["org.opencontainers.image.created"] == "1970-01-01T00:00:00Z"
    assert LABELS.items() <= telling["annotations"].items()
    assert silent["layers"] == telling["layers"]


async def test_the_materials_name_what_was_resolved_and_are_attached(
    workshop: Workshop, results: list[BuildResult]
) -> None:
    purls = [part.get("purl", "") for part in json.loads(results[0].sbom)["components"]]
    assert {"pkg:pypi/answers@1.0", "pkg:pypi/oracle@2.0", "pkg:pypi/numpy@2.2.6"} <= set(purls)
    assert any(purl.startswith("pkg:deb/debian/hello@") for purl in purls)
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls)
    assert results[0].artifact is not None
    artifact = results[0].artifact
    (referrer,) = await referrers(artifact.repository, artifact.digest, access_of(workshop))
    assert referrer["artifactType"] == "application/vnd.cyclonedx+json"


async def test_what_would_differ_in_a_second_build_is_said(results: list[BuildResult]) -> None:
    assert any("was made from the distribution's packages" in note for note in results[0].notes)


async def test_a_base_of_a_registry_is_named_by_its_digest(workshop: Workshop, results: list[BuildResult]) -> None:
    assert results[0].artifact is not None
    base = f"{results[0].artifact.repository}:b-1"
    result = await workshop.builder.build(
        workshop.job("b-2", {"base": base}), lambda *line: workshop.lines.append(line), lambda _: None
    )
    annotations = (await manifest_of(workshop, result))["annotations"]
    assert annotations["org.opencontainers.image.base.digest"] == results[0].artifact.digest
    assert result.notes == (
        f"not repeatable: the base {base} may change; name it as "
        f"{results[0].artifact.repository}@{results[0].artifact.digest}",
    )
    await asyncio.to_thread(workshop.podman, "image", "ls")
    assert workshop.leftovers() == []
