"""Images of one build under one name, and identical requests, with a real registry."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds import registry
from controller.builds.bundles import BundleBuilder
from controller.builds.model import (
    ArtifactKind,
    Build,
    BuildFailed,
    BuildResult,
    BuildState,
    BuiltArtifact,
    OnLine,
    OnState,
    RegistryAccess,
    TargetJob,
)
from controller.builds.registry import INDEX_TYPE, MANIFEST_TYPE
from controller.builds.registry_session import RegistrySession
from controller.builds.service import BuildRequest
from controller.builds.targets import load_profiles
from controller.builds.uploads import UploadStore
from controller.deployments.service import DeploymentService, Request
from controller.housekeeping.plan import needed_builds
from controller.store import Transaction
from controller.store.rows import Page
from tests.support.lying_proxy import Lie, lying_proxy
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.registry import RegistryUnderTest, running_registry
from tests.support.rows import PROJECT

TEXT = """\
version: 1
name: digits
build: {tags: [latest, v1]}
deploy: {entrypoint: [python3], network: {ports: [{name: http, container: 80}]}}
targets: [{profile: x86-cpu}, {profile: armv7-cpu}]
"""
BOTH = BuildRequest(PROJECT, TEXT.encode())
ONE = replace(BOTH, targets=("x86-cpu",))
SUCCEEDED, FAILED, PUSHING = BuildState.SUCCEEDED, BuildState.FAILED, BuildState.PUSHING


class PushingBuilder(ScriptedBuilder):
    """Pushes a real image of almost no content, another one for each profile and for other labels; and real bundles,
    for which it works in `folder`."""

    def __init__(self, access: RegistryAccess, folder: Path) -> None:
        super().__init__()
        self.gate.set()
        self._bundles = BundleBuilder(folder / "bundles", UploadStore(folder / "uploads", min_free_bytes=0), access)
        self.fails_for: set[str] = set()
        # Done when an image was pushed.
        self.afterwards: Callable[[], Awaitable[None]] | None = None
        self._access = access

    async def build(self, job: TargetJob, on_line: OnLine, on_state: OnState) -> BuildResult:
        result = await super().build(job, on_line, on_state)
        if job.profile in self.fails_for:
            raise BuildFailed("StepFailed", "a step failed")
        if job.kind is ArtifactKind.BUNDLE:
            return await self._bundles.build(job, on_line, lambda _: None)
        platform = load_profiles()[job.profile].platform
        labels = {"Labels": dict(job.spec.labels)}
        config = json.dumps({"os": "linux", "architecture": platform.split("/")[1], "config": labels}).encode()
        digest, size = await self._push(job.repository, config)
        if self.afterwards is not None:
            await self.afterwards()
        return replace(result, artifact=BuiltArtifact(job.repository, digest, platform, size))

    async def _push(self, repository: str, config: bytes) -> tuple[str, int]:
        named = {"digest": f"sha256:{hashlib.sha256(config).hexdigest()}", "size": len(config)}
        async with RegistrySession(repository, self._access) as session:
            async with session.request("POST", "blobs/uploads/") as answer:
                place = answer.headers["Location"]
            async with session.request("PUT", place, params={"digest": str(named["digest"])}, data=config) as answer:
                assert answer.status == 201
        body = {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **named},
        }  # fmt: skip
        content = json.dumps(body).encode()
        tag = registry.digest_of(content)
        return await registry.put_manifest(repository, tag, content, MANIFEST_TYPE, self._access), len(config)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RegistryUnderTest]:
    async with running_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def access(server: RegistryUnderTest) -> RegistryAccess:
    return RegistryAccess(server.address, server.ca_file, server.push_credentials)


@pytest.fixture
def builder(access: RegistryAccess, tmp_path: Path) -> PushingBuilder:
    return PushingBuilder(access, tmp_path)


@pytest.fixture
async def bench(tmp_path: Path, builder: PushingBuilder, access: RegistryAccess) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, builder, access=access) as opened:
        yield opened


def repository_of(bench: Bench) -> str:
    return f"{bench.access.address}/alice/digits/digits"


async def named(bench: Bench, tag: str) -> str:
    """The digest that a tag names; "" for none."""
    found = await registry.get_manifest(repository_of(bench), tag, bench.access)
    return "" if found is None else found.digest


async def tags_there(bench: Bench) -> dict[str, str]:
    """What each tag in the registry names, but those that the builder sets."""
    async with (
        RegistrySession(repository_of(bench), bench.access) as session,
        session.request("GET", "tags/list") as answer,
    ):
        # A repository without tags has no name there.
        assert answer.status in (200, 404)
        tags = json.loads(await answer.read()).get("tags") or []
    return {tag: await named(bench, tag) for tag in tags if not tag.startswith(("b-", "sha256-"))}


async def tags_told(bench: Bench) -> dict[str, str]:
    """What each tag names as the list of images has it."""
    shown, _ = await bench.service().images(PROJECT, "", Page())
    return {tag: image.artifact.digest for image in shown for tag in image.tags}


async def built(bench: Bench, request: BuildRequest) -> Build:
    """The build once it has ended."""
    made = await bench.service().create(request)
    return await bench.comes_to(lambda build: build.ended > 0, made.id)


async def until_lines(bench: Bench, build_id: str, text: str) -> None:
    """Returns once the log says this."""
    for _ in range(3000):
        if any(text in line.text for line in await bench.lines(build_id)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(await bench.lines(build_id))


async def test_images_of_one_build_are_joined_under_its_id_and_the_tags_of_the_spec(bench: Bench) -> None:
    async with bench.working():
        made = await built(bench, BOTH)
    assert made.state is SUCCEEDED
    assert made.image_index is not None
    found = await registry.get_manifest(repository_of(bench), made.id, bench.access)
    assert found is not None
    assert (found.digest, found.media_type) == (made.image_index.digest, INDEX_TYPE)
    assert bench.pushed == [("alice", "digits", repository_of(bench), found.digest)]
    index = json.loads(found.body)
    assert index["annotations"]["dev.longshore.project"] == "digits"
    assert index["annotations"]["org.opencontainers.image.revision"].startswith("sha256:")
    members = index["manifests"]
    assert [member["digest"] for member in members] == [each.artifact.digest for each in made.targets if each.artifact]
    assert members[1]["platform"] == {"os": "linux", "architecture": "arm", "variant": "v7"}
    assert {await named(bench, tag) for tag in ("latest", "v1")} == {made.image_index.digest}
    events, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert made.image_index.digest in events[-1].what.message


async def test_the_only_image_gets_the_tags_itself(bench: Bench) -> None:
    async with bench.working():
        made = await built(bench, ONE)
    assert made.image_index is None
    assert made.targets[0].artifact is not None
    assert {await named(bench, tag) for tag in ("latest", "v1", made.id)} == {made.targets[0].artifact.digest}


async def test_a_build_of_which_a_part_failed_moves_no_tag(bench: Bench, builder: PushingBuilder) -> None:
    builder.fails_for = {"armv7-cpu"}
    async with bench.working():
        text = TEXT.replace("{profile: a", "{profile: arm64-cpu}, {profile: a")
        made = await built(bench, replace(BOTH, spec=text.encode()))
    assert made.state is FAILED
    assert made.image_index is not None
    assert await named(bench, made.id) == made.image_index.digest
    assert await named(bench, "latest") == ""


async def test_images_of_one_build_are_pushed_under_tags_of_their_own(bench: Bench, builder: PushingBuilder) -> None:
    builder.fails_for = {"armv7-cpu"}
    async with bench.working():
        one, both = await built(bench, ONE), await built(bench, replace(BOTH, no_cache=True))
    assert {job.tag for job in builder.jobs} == {one.id, f"{both.id}.x86-cpu", f"{both.id}.armv7-cpu"}
    assert not any(job.again for job in builder.jobs)
    # The only one that was made has the build's id after all.
    assert both.targets[0].artifact is not None
    assert await named(bench, both.id) == both.targets[0].artifact.digest


async def test_a_further_try_knows_that_an_earlier_one_may_have_pushed(bench: Bench, builder: PushingBuilder) -> None:
    builder.failures = [BuildFailed("RegistryUnreachable", "away", retryable=True)]
    async with bench.working():
        await built(bench, ONE)
    assert [job.again for job in builder.jobs] == [False, True]


@pytest.mark.parametrize("parallel", [1, 4])
async def test_bundles_bear_the_tags_with_their_key_behind(bench: Bench, parallel: int) -> None:
    bench.parallel = parallel
    bundles = "{profile: arm64-cpu, artifact: bundle}, {profile: x86-cpu}, {profile: x86-cpu, artifact: bundle}"
    text = TEXT.replace("{profile: x86-cpu}, {profile: armv7-cpu}", bundles)
    async with bench.working():
        made = await built(bench, replace(BOTH, spec=text.encode()))
    assert (made.state, made.image_index) == (SUCCEEDED, None)
    digests = {target.key: target.artifact.digest for target in made.targets if target.artifact}
    assert len(set(digests.values())) == 3
    for tag in (made.id, "latest", "v1"):
        assert await named(bench, tag) == digests["x86-cpu"]
        for key in ("x86-cpu.bundle", "arm64-cpu.bundle"):
            assert await named(bench, f"{tag}.{key}") == digests[key]
    there = await tags_there(bench)
    assert len(there) == 6
    assert await tags_told(bench) == there
    last = (await bench.lines(made.id))[-1].text
    assert f"the image is named {made.id}, latest, v1" in last
    assert f"the bundle is named {made.id}.x86-cpu.bundle, latest.x86-cpu.bundle, v1.x86-cpu.bundle" in last


async def test_a_build_of_bundles_alone_moves_their_tags_and_no_others(bench: Bench) -> None:
    text = TEXT.replace("{profile: armv7-cpu}", "{profile: x86-cpu, artifact: bundle}")
    async with bench.working():
        image = await built(bench, replace(BOTH, spec=text.encode(), targets=("x86-cpu",)))
        bundle = await built(bench, replace(BOTH, spec=text.encode(), targets=("x86-cpu.bundle",)))
    (of_image,), (of_bundle,) = image.targets, bundle.targets
    assert of_image.artifact is not None
    assert of_bundle.artifact is not None
    assert await tags_told(bench) == await tags_there(bench) == {
        "latest": of_image.artifact.digest, "v1": of_image.artifact.digest,
        "latest.x86-cpu.bundle": of_bundle.artifact.digest, "v1.x86-cpu.bundle": of_bundle.artifact.digest,
    }  # fmt: skip


async def test_joining_waits_for_a_registry_that_is_away_also_over_a_restart(
    bench: Bench, builder: PushingBuilder, server: RegistryUnderTest
) -> None:
    async def away() -> None:
        if len(builder.begun) == 2:
            await server.registry.kill()

    bench.parallel, builder.afterwards = 1, away
    made = await bench.service().create(BOTH)
    async with bench.working():
        waiting = await bench.comes_to(lambda build: all(each.done for each in build.targets), made.id)
        assert (waiting.state, waiting.ended) == (PUSHING, 0)
        await until_lines(bench, made.id, "tried again by itself")
    await server.registry.start()
    async with bench.working():
        joined = await bench.reaches(made.id, SUCCEEDED)
    assert joined.image_index is not None
    assert await named(bench, "latest") == joined.image_index.digest


async def test_images_that_cannot_be_joined_for_too_long_are_there_by_digest(
    bench: Bench, builder: PushingBuilder, server: RegistryUnderTest
) -> None:
    async def away() -> None:
        if len(builder.begun) == 2:
            await server.registry.kill()

    bench.parallel, bench.retry_seconds, builder.afterwards = 1, 0, away
    made = await bench.service().create(BOTH)
    async with bench.working():
        ended = await bench.reaches(made.id, SUCCEEDED)
    assert ended.image_index is None
    events, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, 0))
    assert events[-1].what.reason == "NotJoined"
    assert "given up, the artifacts themselves are there by digest" in events[-1].what.message
    await server.registry.start()
    assert await tags_told(bench) == await tags_there(bench) == {}


async def test_tags_that_could_be_put_are_told_although_another_could_not(
    server: RegistryUnderTest, tmp_path: Path
) -> None:
    async with lying_proxy(server, tmp_path) as (proxy, access):
        proxy.lies = [Lie("PUT", "/manifests/v1$", status=500)]
        builder = PushingBuilder(access, tmp_path)
        async with open_bench(tmp_path, builder, access=access, retry_seconds=0) as bench, bench.working():
            made = await built(bench, ONE)
            assert made.targets[0].artifact is not None
            assert await tags_told(bench) == await tags_there(bench) == {"latest": made.targets[0].artifact.digest}


async def test_a_build_that_failed_or_was_cancelled_is_told_to_have_no_tag(
    bench: Bench, builder: PushingBuilder
) -> None:
    bench.parallel, builder.fails_for = 1, {"armv7-cpu"}
    async with bench.working():
        failed = await built(bench, BOTH)
        made = asyncio.Event()

        async def cancel() -> None:
            await made.wait()
            await bench.service().cancel(following.id)

        builder.fails_for, builder.afterwards = set(), cancel
        following = await bench.service().create(replace(BOTH, no_cache=True))
        made.set()
        ended = await bench.comes_to(lambda build: build.ended > 0, following.id)
    assert (failed.state, ended.state) == (FAILED, BuildState.CANCELLED)
    shown, _ = await bench.service().images(PROJECT, "", Page())
    assert {image.target for image in shown} == {"x86-cpu"}
    assert await tags_told(bench) == await tags_there(bench) == {}


async def test_an_identical_request_is_answered_without_the_builder(bench: Bench, builder: PushingBuilder) -> None:
    async with bench.working():
        first = await built(bench, ONE)
        again = await bench.service().create(ONE)
        assert again.targets[0].state is SUCCEEDED
        assert again.targets[0].artifact == first.targets[0].artifact
        assert again.targets[0].cached_from == first.id
        third = await bench.service().create(replace(ONE, spec=TEXT.replace("digits", "digits2").encode()))
        assert third.targets[0].cached_from == ""
        await bench.comes_to(lambda build: build.ended > 0, again.id)
    assert builder.begun == [first.id, third.id]
    assert "an identical request was built before" in (await bench.lines(again.id))[0].text


async def test_no_cache_builds_in_any_case(bench: Bench, builder: PushingBuilder) -> None:
    async with bench.working():
        first = await built(bench, ONE)
        again = await built(bench, replace(ONE, no_cache=True))
    assert builder.begun == [first.id, again.id]
    assert [job.no_cache for job in builder.jobs] == [False, True]


async def test_identical_requests_at_the_same_time_are_built_once(bench: Bench, builder: PushingBuilder) -> None:
    builder.gate.clear()
    async with bench.working():
        made = [await bench.service().create(ONE) for _ in range(3)]
        await bench.reaches(made[0].id, BuildState.BUILDING)
        builder.gate.set()
        ends = [await bench.comes_to(lambda build: build.ended > 0, each.id) for each in made]
    assert builder.begun == [made[0].id]
    assert [each.targets[0].cached_from for each in ends] == ["", made[0].id, made[0].id]


async def test_what_the_registry_has_lost_is_built_again(bench: Bench, builder: PushingBuilder) -> None:
    async with bench.working():
        first = await built(bench, ONE)
        assert first.targets[0].artifact is not None
        async with RegistrySession(repository_of(bench), bench.access) as session:
            path = f"manifests/{first.targets[0].artifact.digest}"
            async with session.request("DELETE", path) as answer:
                assert answer.status == 202
        again = await built(bench, ONE)
    assert builder.begun == [first.id, again.id]


async def test_what_is_too_old_is_built_again(bench: Bench, builder: PushingBuilder) -> None:
    async with bench.working():
        first = await built(bench, ONE)
        old = replace(first.targets[0], ended=time.time() - 25 * 3600)
        await bench.store.transact(lambda tx: tx.builds.change_target(first.id, old))
        await built(bench, ONE)
    assert len(builder.begun) == 2


async def test_artifacts_are_listed_newest_first_once_each_with_their_tags(
    bench: Bench, builder: PushingBuilder
) -> None:
    async with bench.working():
        first = await built(bench, BOTH)
        await built(bench, ONE)
        failed = replace(ONE, spec=TEXT.replace("digits", "other").encode())
        builder.failures = [BuildFailed("StepFailed", "a step failed")]
        await built(bench, failed)
    service, shown, token = bench.service(), [], ""
    while True:
        page, token = await service.images(PROJECT, "", Page(2, token))
        assert len(page) <= 2
        shown += page
        if not token:
            break
    assert [(image.build.id, image.target, image.tags) for image in shown] == [
        (first.id, "", ()),
        # To this the second build moved them.
        (first.id, "x86-cpu", ("latest", "v1")),
        (first.id, "armv7-cpu", ()),
    ]
    assert await tags_told(bench) == await tags_there(bench)
    assert {image.in_use for image in shown} == {False}
    assert all(image.artifact.kind is ArtifactKind.IMAGE for image in shown)
    assert (await service.images(None, "bob", Page()))[0] == []


async def test_an_artifact_is_in_use_while_a_deployment_may_return_to_it(bench: Bench) -> None:
    deployments = DeploymentService(bench.store, bench.service(), bench.secrets)
    async with bench.working():
        await built(bench, ONE)
        one = TEXT.replace(", {profile: armv7-cpu}", "").encode()
        applied = (await deployments.apply(Request(PROJECT, one))).deployment
        # Answered by the build before, whose artifact is the one in the list.
        assert (await bench.found(applied.build_id)).targets[0].cached_from
    ((image,), _) = await bench.service().images(PROJECT, "", Page())
    assert image.in_use
    await deployments.delete(applied.id)
    ((image,), _) = await bench.service().images(PROJECT, "", Page())
    assert not image.in_use


async def test_what_is_in_use_is_what_housekeeping_keeps_for_deployments(bench: Bench) -> None:
    deployments = DeploymentService(bench.store, bench.service(), bench.secrets)
    one = TEXT.replace(", {profile: armv7-cpu}", "")
    made = []
    async with bench.working():
        for number in range(4):
            text = one.replace("tags: [latest, v1]", f"labels: {{number: '{number}'}}")
            applied = (await deployments.apply(Request(PROJECT, text.encode()))).deployment
            made.append(await bench.comes_to(lambda build: build.ended > 0, applied.build_id))

    def look(tx: Transaction) -> tuple[set[str], set[str]]:
        shown, _ = tx.images.page(PROJECT, "", Page(), 3)
        kept = needed_builds(tx.keeping.builds(), tx.keeping.uses(), 3)
        return {image.build.id for image in shown if image.in_use}, kept

    in_use, kept = await bench.store.transact(look)
    assert in_use == kept == {build.id for build in made[1:]}
