"""The history of a deployment, and the way back, on a store without a network."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState, ContextFile
from controller.deployments.history import Comparison, HistoryService, Undo
from controller.deployments.model import Deployment, Wish, WorkloadRow
from controller.deployments.service import Applied, DeploymentService, Request
from controller.devices.model import Device, Presence
from controller.errors import DomainError, InvalidRequest
from controller.store import Transaction
from controller.store.rows import Page
from controller.volumes.model import VolumeVersion
from longshore.errors import Reason
from longshore.v1.device_pb2 import DeviceFacts
from longshore.v1.types_pb2 import WorkloadSpec
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import ARTIFACT, PROJECT, build

TEXT = """\
version: 1
name: digits
build: {base: "registry.invalid/digits:1"}
deploy: {environment: {LEVEL: "1"}, checks: {readiness: {command: {command: [serve]}}}}
targets: [{profile: x86-cpu}]
"""
SECRET = TEXT.replace("deploy: {", "deploy: {secrets: [{name: token}], ")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """With a device, and builds for it: two that have succeeded with files of their own, one that has failed."""
    async with open_bench(tmp_path, ScriptedBuilder()) as opened:

        def fill(tx: Transaction) -> None:
            states = {"b-1": BuildState.SUCCEEDED, "b-2": BuildState.SUCCEEDED, "b-bad": BuildState.FAILED}
            for name, state in states.items():
                made = build(state)
                target = replace(made.targets[0], key="x86-cpu", profile="x86-cpu", artifact=ARTIFACT)
                files = (ContextFile("server.py", f"sha256:{name}", 1),)
                tx.builds.add(replace(made, id=name, targets=(target,), files=files), "")
            tx.devices.add(Device("dev-1", "edge-1", "x86-cpu", 1.0, presence=Presence.ONLINE))

        await opened.store.transact(fill)
        yield opened


@pytest.fixture
def history(bench: Bench) -> HistoryService:
    return HistoryService(bench.store, bench.secrets)


def level(number: int) -> str:
    return TEXT.replace('"1"', f'"{number}"')


async def apply(bench: Bench, text: str, build_id: str = "b-1", author: str = "alice", **secrets: bytes) -> Deployment:
    service = DeploymentService(bench.store, bench.service(), bench.secrets)
    request = Request(PROJECT, text.encode(), build_id=build_id, author=author, secrets=secrets)
    return (await service.apply(request)).deployment


async def workload(bench: Bench) -> WorkloadRow:
    (row,) = await bench.store.transact(lambda tx: tx.workloads.of_device("dev-1"))
    return row


async def refused(history: HistoryService, wanted: Undo) -> tuple[Reason, str]:
    with pytest.raises(DomainError) as caught:
        await history.undo(wanted)
    return caught.value.reason, caught.value.message


async def test_history_keeps_who_made_a_revision_and_what_it_changed(bench: Bench, history: HistoryService) -> None:
    made = await apply(bench, level(1))
    await apply(bench, level(2), author="bob")
    await apply(bench, level(2), "b-2", author="carol")
    found, token = await history.page(made.id, Page(size=2))
    rest, end = await history.page(made.id, Page(size=2, token=token))
    assert end == ""
    assert [(one.revision.revision, one.revision.author) for one in (*found, *rest)] == [
        (3, "carol"), (2, "bob"), (1, "alice"),
    ]  # fmt: skip
    told = [[(field.path, field.before, field.after) for field in one.fields] for one in (*found, *rest)]
    assert told == [
        [("files[server.py]", '"sha256:b-1"', '"sha256:b-2"')],
        [("deploy.environment.LEVEL", '"1"', '"2"')],
        [],
    ]
    with pytest.raises(InvalidRequest, match="not a token"):
        await history.page(made.id, Page(token="x"))


async def test_undo_is_a_new_revision_equal_to_an_earlier_one(bench: Bench, history: HistoryService) -> None:
    made = await apply(bench, level(1))
    await apply(bench, level(2), "b-2")
    undone: list[Applied] = [await history.undo(Undo(made.id, request_id="r", author="bob")) for _ in range(2)]
    assert {each.deployment.revision for each in undone} == {3}
    assert (undone[0].deployment.spec, undone[0].deployment.build_id) == (level(1).encode(), "b-1")
    assert (await workload(bench)).revision == 3
    (newest, *_), _ = await history.page(made.id, Page())
    assert (newest.revision.undo_of, newest.revision.author) == (1, "bob")
    events, _ = await bench.store.transact(lambda tx: tx.events.after(PROJECT, undone[0].events_from))
    assert {event.what.revision for event in events} == {3}
    again = await history.undo(Undo(made.id))
    assert again.deployment.spec == level(2).encode()


async def test_undo_passes_over_what_was_never_built_and_starts_what_was_stopped(
    bench: Bench, history: HistoryService
) -> None:
    made = await apply(bench, level(1))
    await apply(bench, level(2), "b-bad")
    await apply(bench, level(3), "b-2")
    await DeploymentService(bench.store, bench.service(), bench.secrets).stop(made.id)
    assert (await workload(bench)).wish is Wish.STOP
    undone = await history.undo(Undo(made.id))
    assert undone.deployment.spec == level(1).encode()
    assert (await workload(bench)).wish is Wish.RUN
    reason, message = await refused(history, Undo(made.id, to_revision=2))
    assert reason is Reason.REVISION_UNUSABLE
    assert "b-bad is failed" in message


async def test_undo_says_why_there_is_no_way_back(bench: Bench, history: HistoryService) -> None:
    made = await apply(bench, level(1))
    assert (await refused(history, Undo(made.id)))[0] is Reason.NO_SUCH_REVISION
    assert (await refused(history, Undo(made.id, to_revision=7)))[0] is Reason.NO_SUCH_REVISION
    assert (await refused(history, Undo(made.id, to_revision=1)))[0] is Reason.INVALID_REQUEST
    await apply(bench, level(2), "b-2")
    await bench.store.transact(lambda tx: tx.keeping.remove(["b-1"]))
    assert (await refused(history, Undo(made.id, to_revision=1)))[0] is Reason.REVISION_UNUSABLE
    await DeploymentService(bench.store, bench.service(), bench.secrets).delete(made.id)
    assert (await refused(history, Undo(made.id)))[0] is Reason.REVISION_UNUSABLE
    found, _ = await history.page(made.id, Page())
    assert len(found) == 2


async def test_undo_keeps_the_values_of_secrets_that_are_there_and_asks_for_others(
    bench: Bench, history: HistoryService
) -> None:
    made = await apply(bench, SECRET, token=b"first")
    await apply(bench, SECRET.replace('"1"', '"2"'), "b-2", token=b"second")
    await history.undo(Undo(made.id, to_revision=1))
    sealed = await bench.store.transact(lambda tx: tx.deployments.secrets(made.id, 3))
    assert bench.secrets.open(sealed) == {"token": b"second"}
    await apply(bench, level(3))
    reason, message = await refused(history, Undo(made.id, to_revision=1))
    assert reason is Reason.INVALID_REQUEST
    assert "token" in message
    await history.undo(Undo(made.id, to_revision=1, secrets={"token": b"third"}))


async def test_a_file_is_compared_with_what_is_deployed(bench: Bench, history: HistoryService) -> None:
    made = await apply(bench, level(1))
    await apply(bench, level(2), "b-2")
    files = [ContextFile("server.py", "sha256:new", 1)]
    found = await history.compare(Comparison(made.id, spec=level(5).encode(), files=files))
    assert (found.from_revision, found.to_revision) == (2, 0)
    assert [(field.path, field.after) for field in found.fields] == [
        ("deploy.environment.LEVEL", '"5"'),
        ("files[server.py]", '"sha256:new"'),
    ]
    labelled = level(2).replace("x86-cpu}", "x86-cpu, labels: {site: hall}}")
    both = await history.compare(Comparison(made.id, spec=labelled.encode(), files=files))
    assert [field.path for field in both.fields] == ["files[server.py]", "targets[x86-cpu].labels.site"]
    assert (await history.compare(Comparison(made.id, from_revision=1, spec=level(1).encode()))).fields == ()
    between = await history.compare(Comparison(made.id))
    assert (between.from_revision, between.to_revision, len(between.fields)) == (1, 2, 2)


MODEL = TEXT.replace("deploy: {", "deploy: {volumes: [{name: model, dst: /models, project_volume: digits}], ")


def version(letter: str) -> VolumeVersion:
    return VolumeVersion(f"vol-{letter}", PROJECT, "digits", f"sha256:{letter * 64}", "registry/v", 7, 1, 1.0)


async def put(bench: Bench, letter: str) -> None:
    await bench.store.transact(lambda tx: tx.volumes.put(version(letter)))


async def digest(bench: Bench) -> str:
    """Of the version that the device is told, in both ways in which it is kept."""
    row = await workload(bench)
    (told,) = WorkloadSpec.FromString(row.workload_spec).project_volumes
    (pinned,) = row.volumes
    assert (told.digest, told.target, told.name) == (pinned.digest, "/models", pinned.name)
    return pinned.digest


async def able(bench: Bench) -> None:
    """The device says that it can mount project volumes."""
    facts = DeviceFacts(capabilities=["artifact:image", "project-volumes"]).SerializeToString()

    def say(tx: Transaction) -> None:
        tx.devices.remove("dev-1")
        tx.devices.add(Device("dev-1", "edge-1", "x86-cpu", 1.0, presence=Presence.ONLINE, facts=facts))

    await bench.store.transact(say)


async def test_a_revision_keeps_the_version_of_its_volume_and_undo_returns_to_it(
    bench: Bench, history: HistoryService
) -> None:
    await able(bench)
    await put(bench, "a")
    deployment = await apply(bench, MODEL)
    await put(bench, "b")
    assert await digest(bench) == version("a").digest
    await apply(bench, MODEL)
    assert await digest(bench) == version("b").digest
    undone = await history.undo(Undo(deployment.id))
    assert undone.deployment.revision == 3
    assert await digest(bench) == version("a").digest
    repositories = await bench.store.transact(lambda tx: tx.workloads.repositories_of("dev-1"))
    assert repositories == {ARTIFACT.repository, "registry/v"}


async def test_a_version_that_is_named_is_taken_and_one_that_is_not_there_is_refused(bench: Bench) -> None:
    await able(bench)
    for letter in "ab":
        await put(bench, letter)
    named = MODEL.replace("digits}]", f"digits, version: '{version('a').digest}'}}]")
    await apply(bench, named)
    assert await digest(bench) == version("a").digest
    with pytest.raises(DomainError) as refusal:
        await apply(bench, named.replace("aaaa", "cccc"))
    assert refusal.value.reason is Reason.NO_SUCH_VOLUME


async def test_a_device_whose_agent_cannot_mount_volumes_gets_no_workload(bench: Bench) -> None:
    await put(bench, "a")
    deployment = await apply(bench, MODEL)
    assert [left.reason for left in deployment.left_out] == ["NoProjectVolumes"]
    assert await bench.store.transact(lambda tx: tx.workloads.of_device("dev-1")) == []


async def test_a_version_that_something_uses_cannot_be_deleted_and_a_lost_one_is_no_way_back(
    bench: Bench, history: HistoryService
) -> None:
    await able(bench)
    await put(bench, "a")
    deployment = await apply(bench, MODEL)
    await put(bench, "b")
    await apply(bench, MODEL)
    used = await bench.store.transact(lambda tx: tx.keeping.used_volumes())
    assert used == {version("a").place, version("b").place}, "the device may return to the one before"
    await bench.store.transact(lambda tx: tx.volumes.remove(["vol-a"]))
    reason, message = await refused(history, Undo(deployment.id, to_revision=1))
    assert reason is Reason.REVISION_UNUSABLE
    assert f"digits@{version('a').digest}" in message
