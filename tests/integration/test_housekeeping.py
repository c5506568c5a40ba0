"""Housekeeping with a real registry and real rows: what goes is gone everywhere, what is needed stays everywhere."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from controller.builds.blobs import blob_of, push_blob
from controller.builds.model import BuildState, BuiltArtifact, RegistryAccess
from controller.builds.referrers import attach_document, canonical, referrers, tag_of
from controller.builds.registry import INDEX_TYPE, digest_of, has_manifest, put_manifest, read_manifest
from controller.builds.registry_session import RegistryRefused, RegistrySession
from controller.deployments.model import Wish, WorkloadRow
from controller.events.model import NO_PROJECT, EventKind, NewEvent
from controller.housekeeping import old_builds
from controller.housekeeping.artifacts import remove_artifact
from controller.housekeeping.journal import Journal
from controller.housekeeping.plan import DAY, Artifact
from controller.store import Transaction, schema
from controller.volumes.model import PinnedVolume, VolumeVersion
from tests.support.house import House, open_house
from tests.support.rows import PROJECT, build, deployment


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


def _tag(tx: Transaction, tag: str, image: BuiltArtifact) -> None:
    tx.tags.move(image.repository, tag, image.digest)


async def test_what_nothing_needs_is_gone_everywhere_and_what_is_deployed_stays_everywhere(house: House) -> None:
    needed, unneeded = await house.upload(b"needed"), await house.upload(b"unneeded")
    images = [await house.push(name) for name in ("old", "previous", "present", "young", "wished")]
    old = await house.build(1, images[0], files=[unneeded])
    previous = await house.build(2, images[1], files=[needed])
    present = await house.build(3, images[2])
    for tag, image in (("v1", images[0]), ("v2", images[1])):
        await house.store.transact(partial(_tag, tag=tag, image=image))
    await house.build(4, images[3], ended=time.time())
    await house.deploy(previous)
    await house.deploy(present, 2)
    workload = WorkloadRow("dep-1", "dev-1", 1, Wish.RUN, images[4], b"")
    await house.store.transact(lambda tx: tx.workloads.put(workload))
    before = house.registry_bytes()

    findings = await house.keeper().look()
    assert findings.builds.builds == (old.id,)
    assert [artifact.digest for artifact in findings.builds.artifacts] == [images[0].digest]
    assert [content.digest for content in findings.uploads] == [unneeded.digest]

    await house.keeper().tidy(grace=0)
    assert await house.known() == {"b-2", "b-3", "b-4"}
    assert [await house.has(image) for image in images] == [False, True, True, True, True]
    assert await referrers(images[0].repository, images[0].digest, house.access) == []
    assert len(await referrers(images[1].repository, images[1].digest, house.access)) == 1
    assert await house.store.transact(lambda tx: tx.tags.of(images)) == {
        (images[1].repository, images[1].digest): ("v2",)
    }
    assert before - house.registry_bytes() > 150_000
    assert (house.uploads.stat(needed.digest).complete, house.uploads.stat(unneeded.digest).complete) == (True, False)
    assert set(house.logs.sizes()) == {"b-2", "b-3", "b-4"}
    assert house.materials.read(old.id, old.targets[0].key) is None
    assert house.materials.read(present.id, present.targets[0].key) == b"{}"
    assert not (house.folder / "journal.json").exists()
    # The registry takes pushes again.
    assert await house.has(await house.push("after"))


async def test_a_bill_of_materials_stays_with_the_last_build_that_has_the_artifact(house: House) -> None:
    image = await house.push("image")
    made = await house.build(1, image)
    taken = await house.build(2, image, ended=time.time(), cached_from=made.id)
    key = made.targets[0].key
    house.materials.remove(taken.id)
    await house.keeper().tidy(grace=0)
    assert await house.known() == {taken.id}
    assert house.materials.read(made.id, key) == b"{}"
    await house.store.transact(lambda tx: tx.keeping.remove([taken.id]))
    await house.keeper().tidy(grace=0)
    assert house.materials.builds() == set()


async def test_a_registry_that_is_down_is_asked_again_in_the_next_round(house: House) -> None:
    image = await house.push("old")
    await house.build(1, image)
    nowhere = RegistryAccess("127.0.0.1:9", None, lambda: ("", ""))
    elsewhere = replace(image, repository=image.repository.replace(house.registry.address, "127.0.0.1:9"))
    await house.build(2, elsewhere)
    await house.keeper(nowhere).tidy(grace=0)
    assert await house.known() == set()
    assert (house.folder / "journal.json").exists()
    Journal(house.folder / "journal.json").remove(
        [each for each in Journal(house.folder / "journal.json").read() if "127.0.0.1:9/" in each.repository]
    )
    await house.keeper().tidy(grace=0)
    assert not await house.has(image)
    assert not (house.folder / "journal.json").exists()


async def test_an_artifact_that_was_noted_and_is_built_again_before_it_is_removed_stays(house: House) -> None:
    """Also where a killed controller had noted it and forgot its build no more."""
    image = await house.push("old")
    Journal(house.folder / "journal.json").add([Artifact("alice", "digits", image.repository, image.digest)])
    await house.build(2, image, ended=time.time())
    await house.keeper().tidy(grace=0)
    assert await house.has(image)
    assert not (house.folder / "journal.json").exists()


async def test_what_a_build_pushed_that_then_failed_goes_once_its_project_builds_no_more(house: House) -> None:
    image, taken = await house.push("image"), await house.push("taken")
    journal = Journal(house.folder / "journal.json")
    for pushed in (image, taken):
        journal.note("alice", "digits", pushed.repository, pushed.digest)
    running = replace(build(BuildState.PUSHING), id="b-1")
    await house.store.transact(lambda tx: tx.builds.add(running, ""))
    await house.keeper().tidy(grace=0)
    assert [await house.has(pushed) for pushed in (image, taken)] == [True, True]
    failed = replace(running.targets[0], state=BuildState.FAILED, ended=time.time())
    await house.store.transact(lambda tx: tx.builds.change_target("b-1", failed))
    await house.build(2, taken, ended=time.time())
    await house.keeper().tidy(grace=0)
    assert [await house.has(pushed) for pushed in (image, taken)] == [False, True]
    assert not (house.folder / "journal.json").exists()


async def test_what_a_push_that_was_begun_left_under_its_tag_goes_once_its_project_builds_no_more(
    house: House,
) -> None:
    image, taken = await house.push("image"), await house.push("taken")
    journal = Journal(house.folder / "journal.json")
    for pushed in (image, taken):
        manifest = await read_manifest(pushed.repository, pushed.digest, house.access)
        await put_manifest(pushed.repository, "b-1.x86-cpu", manifest.body, manifest.media_type, house.access)
        journal.note("alice", "digits", pushed.repository, "b-1.x86-cpu")
    journal.note("alice", "digits", image.repository, "b-1.arm64-cpu")
    noted = journal.read()
    running = replace(build(BuildState.PUSHING), id="b-1")
    await house.store.transact(lambda tx: tx.builds.add(running, ""))
    await house.keeper().tidy(grace=0)
    assert journal.read() == noted
    failed = replace(running.targets[0], state=BuildState.FAILED, ended=time.time())
    await house.store.transact(lambda tx: tx.builds.change_target("b-1", failed))
    await house.build(2, taken, ended=time.time())
    await house.keeper().tidy(grace=0)
    assert [await house.has(pushed) for pushed in (image, taken)] == [False, True]
    assert not await has_manifest(image.repository, "b-1.x86-cpu", house.access)
    assert not (house.folder / "journal.json").exists()


async def test_pushes_of_which_a_registry_that_is_down_tells_nothing_are_looked_at_later(house: House) -> None:
    image = await house.push("image")
    manifest = await read_manifest(image.repository, image.digest, house.access)
    await put_manifest(image.repository, "b-1", manifest.body, manifest.media_type, house.access)
    journal = Journal(house.folder / "journal.json")
    journal.note("alice", "digits", image.repository, "b-1")
    noted = journal.read()
    await house.registry.registry.stop()
    await house.keeper().tidy(grace=0)
    assert journal.read() == noted
    await house.registry.registry.start()
    await house.keeper().tidy(grace=0)
    assert not await house.has(image)
    assert journal.read() == set()


async def test_what_a_push_that_was_cut_short_had_sent_goes_now_and_then(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await house.push("kept")
    await house.build(1, image, ended=time.time())
    before = house.registry_bytes()
    async with RegistrySession(image.repository, house.access) as session:
        await push_blob(session, blob_of("text/x", bytes(300_000)))
    await house.keeper().tidy(grace=0)
    assert house.registry_bytes() >= before + 300_000
    monkeypatch.setattr(old_builds, "COLLECT_EVERY", 0.0)
    await house.keeper().tidy(grace=0)
    assert house.registry_bytes() < before + 1000
    assert await house.has(image)


async def test_logs_that_a_killed_controller_left_are_compressed(house: House) -> None:
    made = await house.build(1, await house.push("young"), ended=time.time())
    house.logs.append(made.id, "", "system", "one more line")
    house.logs.close(made.id)
    assert house.logs.unfinished() == [made.id]
    await house.keeper().tidy(grace=0)
    assert house.logs.unfinished() == []


async def test_while_the_registry_frees_space_it_lets_pull_and_refuses_pushes(house: House) -> None:
    image = await house.push("kept")
    local = house.registry.registry
    await local._restart(read_only=True)
    assert await house.has(image)
    async with RegistrySession(image.repository, house.access) as session:
        with pytest.raises(RegistryRefused, match="405"):
            await push_blob(session, blob_of("text/x", b"new"))
    await local._restart(read_only=False)
    await local.collect_garbage()
    assert await house.has(image)


async def test_one_artifact_that_cannot_be_removed_hinders_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted([await house.push(name) for name in ("one", "two", "three")], key=lambda made: made.repository)
    for number, image in enumerate(images):
        await house.build(number, image)
    troubles: list[Exception] = [RegistryRefused("HTTP status 405"), KeyError("manifests")]

    async def troubled(repository: str, digest: str, access: RegistryAccess) -> None:
        if troubles:
            raise troubles.pop(0)
        await remove_artifact(repository, digest, access)

    monkeypatch.setattr(old_builds, "remove_artifact", troubled)
    await house.keeper().tidy(grace=0)
    assert [await house.has(image) for image in images] == [True, True, False]
    await house.keeper().tidy(grace=0)
    assert [await house.has(image) for image in images] == [False, False, False]


async def test_an_artifact_that_is_built_again_while_others_are_removed_stays(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted([await house.push(name) for name in ("one", "two")], key=lambda made: made.repository)
    for number, image in enumerate(images):
        await house.build(number, image)

    async def slow(repository: str, digest: str, access: RegistryAccess) -> None:
        await remove_artifact(repository, digest, access)
        await house.build(9, images[1], ended=time.time())

    monkeypatch.setattr(old_builds, "remove_artifact", slow)
    await house.keeper().tidy(grace=0)
    assert [await house.has(image) for image in images] == [False, True]


async def test_what_lies_under_the_name_of_an_artifacts_documents_and_is_none_stays(house: House) -> None:
    """Tags of users were not always kept from naming such a thing."""
    old, moved = await house.push("old"), await house.push("other", "old")
    manifest = await read_manifest(moved.repository, moved.digest, house.access)
    entry = {"mediaType": manifest.media_type, "digest": moved.digest, "size": len(manifest.body)}
    index = canonical({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]})
    for body, media_type in ((manifest.body, manifest.media_type), (index, INDEX_TYPE)):
        await put_manifest(old.repository, tag_of(old.digest), body, media_type, house.access)
        await remove_artifact(old.repository, old.digest, house.access)
        assert not await house.has(old)
        assert await has_manifest(old.repository, moved.digest, house.access)
    assert await has_manifest(old.repository, digest_of(index), house.access)
    # And an artifact that has no readable list gets its document.
    await put_manifest(old.repository, tag_of(moved.digest), manifest.body, manifest.media_type, house.access)
    await attach_document(old.repository, moved.digest, b"{}", "text/x", house.access)
    assert len(await referrers(old.repository, moved.digest, house.access)) == 1


def _version(number: int, image: BuiltArtifact, pushed: float) -> VolumeVersion:
    return VolumeVersion(f"vol-{number}", PROJECT, "model", image.digest, image.repository, 200_000, 1, pushed)


async def test_old_versions_of_volumes_go_and_those_that_something_may_return_to_stay(house: House) -> None:
    images = [await house.push(f"model-{number}", "volume") for number in range(4)]
    long_ago = time.time() - 200 * DAY
    versions = [_version(number, image, long_ago + number) for number, image in enumerate(images)]
    for version in versions:
        await house.store.transact(partial(_put, version=version))
    # The second is that of a revision; of the others, only the last stays by its number.
    pinned = (PinnedVolume("model", "model", images[1].repository, images[1].digest, 1),)
    row = deployment()
    await house.store.transact(lambda tx: tx.deployments.add(row))
    await house.store.transact(lambda tx: tx.deployments.add_revision(row, "", volumes=pinned))
    house.policy = replace(house.policy, volumes_keep_last=1)
    assert {each.id for each in (await house.keeper().look()).volumes} == {"vol-0", "vol-2"}
    await house.keeper().tidy(grace=0)
    assert [await house.has(image) for image in images] == [False, True, False, True]
    left = await house.store.transact(lambda tx: tx.volumes.all())
    assert {each.id for each in left} == {"vol-1", "vol-3"}
    assert not (house.folder / "journal.json").exists()


def _put(tx: Transaction, version: VolumeVersion) -> None:
    tx.volumes.put(version)


async def test_a_version_that_may_go_only_since_the_look_waits_until_it_is_noted(house: House) -> None:
    images = [await house.push(f"model-{number}", "volume") for number in range(3)]
    long_ago = time.time() - 200 * DAY
    for number, image in enumerate(images):
        await house.store.transact(partial(_put, version=_version(number, image, long_ago + number)))
    house.policy = replace(house.policy, volumes_keep_last=2)
    keeper = house.keeper()
    found = (await keeper.look()).volumes
    await house.store.transact(partial(_put, version=_version(3, await house.push("model-3", "volume"), time.time())))
    await keeper._forget_volumes(found)
    left = await house.store.transact(lambda tx: tx.volumes.all())
    assert {each.id for each in left} == {"vol-1", "vol-2", "vol-3"}
    await keeper.tidy(grace=0)
    assert [await house.has(image) for image in images] == [False, False, True]


async def test_a_volume_that_is_forgotten_is_gone_from_the_registry_after_the_next_round(house: House) -> None:
    (image,) = [await house.push("model-0", "volume")]
    version = _version(0, image, time.time())
    await house.store.transact(partial(_put, version=version))
    noted = Artifact("alice", "digits", *version.place)
    Journal(house.folder / "journal.json").add([noted])
    await house.keeper().tidy(grace=0)
    assert await house.has(image), "what is noted and kept stays"
    Journal(house.folder / "journal.json").add([noted])
    await house.store.transact(lambda tx: tx.volumes.remove([version.id]))
    await house.keeper().tidy(grace=0)
    assert not await house.has(image)


async def test_old_events_go_and_of_each_log_the_newest_stay(house: House) -> None:
    def fill(tx: Transaction) -> None:
        for project in (PROJECT, NO_PROJECT):
            for _ in range(5):
                tx.events.append(NewEvent(project, EventKind.BUILD, "QUEUED"))
        tx.events._connection.execute(update(schema.events).values(time=time.time() - 91 * DAY))
        tx.events.append(NewEvent(PROJECT, EventKind.BUILD, "SUCCEEDED"))

    await house.store.transact(fill)
    house.policy = replace(house.policy, events_days=90, events_keep_last=2)
    assert (await house.keeper().look()).events == {PROJECT: 4, NO_PROJECT: 3}
    await house.keeper().tidy(grace=0)
    oldest = await house.store.transact(lambda tx: [tx.events.oldest_number(one) for one in (PROJECT, NO_PROJECT)])
    assert oldest == [5, 4]
    assert (await house.keeper().look()).events == {}
