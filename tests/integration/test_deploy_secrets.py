"""Values of secrets of a running service: sealed in the database, plain only in what its devices fetch."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.builds.model import BuildState
from controller.deployments.service import DeploymentService, Request
from controller.devices.model import Device, Presence
from controller.errors import InvalidRequest
from controller.rpc.desired import desired_state
from controller.sealing import SecretBox
from controller.store import Transaction
from longshore.v1 import agent_pb2
from tests.support.queueing import Bench, ScriptedBuilder, open_bench
from tests.support.rows import ARTIFACT, PROJECT, build

TEXT = """\
version: 1
name: digits
build: {base: "registry.invalid/digits:1"}
deploy: {secrets: [{name: token}, {name: key, dst: /etc/key}], checks: {readiness: {command: {command: [serve]}}}}
targets: [{profile: x86-cpu}]
"""
OLD, NEW, KEY = b"the-old-token-of-alice", b"the-new-token-of-alice", b"\x00key of alice\n"
FIRST = Request(PROJECT, TEXT.encode(), build_id="b-1", secrets={"token": OLD, "key": KEY})
AGAIN = replace(FIRST, secrets={"token": NEW})


@pytest.fixture
def builder() -> ScriptedBuilder:
    return ScriptedBuilder()


@pytest.fixture
async def bench(tmp_path: Path, builder: ScriptedBuilder) -> AsyncIterator[Bench]:
    """With a device, and the build b-1 for it; b-2 waits."""
    async with open_bench(tmp_path, builder) as opened:

        def fill(tx: Transaction) -> None:
            for name, state in (("b-1", BuildState.SUCCEEDED), ("b-2", BuildState.QUEUED)):
                made = build(state)
                target = replace(made.targets[0], key="x86-cpu", profile="x86-cpu", artifact=ARTIFACT)
                tx.builds.add(replace(made, id=name, targets=(target,)), "")
            for device in ("dev-1", "other"):
                profile = "x86-cpu" if device == "dev-1" else "arm64-cpu"
                tx.devices.add(Device(device, device, profile, 1.0, presence=Presence.ONLINE))

        await opened.store.transact(fill)
        yield opened


def deployments(bench: Bench) -> DeploymentService:
    return DeploymentService(bench.store, bench.service(), bench.secrets)


async def told(bench: Bench, device_id: str = "dev-1", box: SecretBox | None = None) -> agent_pb2.DesiredState:
    """What the device fetches."""

    def read(tx: Transaction) -> agent_pb2.DesiredState:
        device = tx.devices.get(device_id)
        assert device is not None
        return desired_state(tx, device, box or bench.secrets)

    return await bench.store.transact(read)


async def files(bench: Bench) -> dict[str, bytes]:
    """Content of each file that the device is told of."""
    (entry,) = (await told(bench)).workloads
    return {secret.target: secret.content for secret in entry.workload.spec.secrets}


async def sealed(bench: Bench, deployment_id: str) -> list[int]:
    """Revisions of which values are kept."""
    return await bench.store.transact(
        lambda tx: [number for number in range(1, 10) if tx.deployments.secrets(deployment_id, number)]
    )


def on_disk(bench: Bench) -> bytes:
    """The database as a thief has it, with all that is not yet in its main file."""
    return b"".join(path.read_bytes() for path in sorted(bench.folder.glob("controller.db*")))


async def test_a_device_that_runs_it_is_told_the_values_and_no_other_is(bench: Bench) -> None:
    await deployments(bench).apply(FIRST)
    assert await files(bench) == {"/run/secrets/token": OLD, "/etc/key": KEY}
    assert not (await told(bench, "other")).workloads


async def test_a_stolen_database_holds_no_plain_value(bench: Bench) -> None:
    service = deployments(bench)
    await service.apply(FIRST)
    await service.apply(AGAIN)
    await service.apply(replace(FIRST, build_id="b-2", secrets={"token": b"third-token-of-alice"}))
    held = on_disk(bench)
    assert b"registry.invalid/digits" in held, "this is where the rest of the deployment is"
    for value in (OLD, NEW, KEY, b"third-token-of-alice"):
        assert [form for form in (value, base64.b64encode(value), value.hex().encode()) if form in held] == []


async def test_a_change_of_one_value_alone_is_a_new_revision_that_keeps_the_others(bench: Bench) -> None:
    service = deployments(bench)
    await service.apply(FIRST)
    before = await told(bench)
    applied = (await service.apply(AGAIN)).deployment
    assert applied.revision == 2
    after = await told(bench)
    assert after.generation > before.generation
    assert after.workloads[0].workload.revision == 2
    assert await files(bench) == {"/run/secrets/token": NEW, "/etc/key": KEY}
    await service.apply(replace(FIRST, secrets={}))
    assert await files(bench) == {"/run/secrets/token": NEW, "/etc/key": KEY}
    assert await sealed(bench, applied.id) == [3], "no device is told of the others any more"


async def test_while_the_next_revision_is_built_the_present_one_keeps_its_values(bench: Bench) -> None:
    service = deployments(bench)
    made = (await service.apply(FIRST)).deployment
    waiting = (await service.apply(replace(AGAIN, build_id="b-2"))).deployment
    assert await sealed(bench, made.id) == [1, 2]
    assert await files(bench) == {"/run/secrets/token": OLD, "/etc/key": KEY}
    assert waiting.revision == 2
    # What follows is asked of the revision that waits, not of the one that runs.
    await service.apply(replace(FIRST, secrets={}))
    assert await files(bench) == {"/run/secrets/token": NEW, "/etc/key": KEY}


async def test_a_refused_request_changes_nothing(bench: Bench) -> None:
    service = deployments(bench)
    with pytest.raises(InvalidRequest, match="names 'key', and neither"):
        await service.apply(AGAIN)
    with pytest.raises(InvalidRequest, match="does not name 'other'; it names token, key"):
        await service.apply(replace(FIRST, secrets={**FIRST.secrets, "other": b""}))
    with pytest.raises(InvalidRequest, match="build b-1 has had its secrets"):
        await service.apply(replace(FIRST, build_secrets={"index": b""}))
    assert not (await told(bench)).workloads


async def test_values_of_a_deployment_are_gone_with_it_and_those_of_a_stopped_one_are_not(bench: Bench) -> None:
    service = deployments(bench)
    made = (await service.apply(FIRST)).deployment
    await service.stop(made.id)
    assert await sealed(bench, made.id) == [1]
    await service.apply(replace(FIRST, secrets={}))
    assert await files(bench) == {"/run/secrets/token": OLD, "/etc/key": KEY}
    await service.delete(made.id)
    assert await sealed(bench, made.id) == []
    assert not (await told(bench)).workloads
    # One of the same name is another one: it inherits nothing.
    with pytest.raises(InvalidRequest, match="names 'token', and neither"):
        await service.apply(replace(FIRST, secrets={}))


async def test_a_project_of_another_user_inherits_nothing(bench: Bench) -> None:
    await deployments(bench).apply(FIRST)

    def give_bob_a_build(tx: Transaction) -> None:
        mine = tx.builds.get("b-1")
        assert mine is not None
        tx.builds.add(replace(mine, id="b-3", user_id="bob"), "")

    await bench.store.transact(give_bob_a_build)
    bobs = replace(FIRST, project=replace(PROJECT, user_id="bob"), build_id="b-3")
    with pytest.raises(InvalidRequest, match="names 'token', and neither"):
        await deployments(bench).apply(replace(bobs, secrets={}))
    assert (await deployments(bench).apply(bobs)).deployment.revision == 1


async def test_without_its_key_a_device_is_told_to_leave_the_workload_as_it_is(bench: Bench, tmp_path: Path) -> None:
    await deployments(bench).apply(FIRST)
    (entry,) = (await told(bench, box=SecretBox(tmp_path / "another.key"))).workloads
    assert "deploy it again with all of them" in entry.problem
    assert [secret.content for secret in entry.workload.spec.secrets] == [b"", b""]
    assert not entry.workload.HasField("artifact"), "what older agents take for broken"


async def test_secrets_of_the_build_come_with_the_deployment(bench: Bench, builder: ScriptedBuilder) -> None:
    text = TEXT.replace("build: {", "build: {secrets: [index], ")
    wanted = replace(FIRST, spec=text.encode(), build_id="", build_secrets={"index": b"hunter2"})
    service = deployments(bench)
    with pytest.raises(InvalidRequest, match=r"build_secrets: build\.secrets names 'index', and no value"):
        await service.apply(replace(wanted, build_secrets={}))
    applied = (await service.apply(wanted)).deployment
    assert b"hunter2" not in on_disk(bench)
    builder.gate.set()
    async with bench.working():
        await bench.comes_to(lambda made: made.targets[0].done, applied.build_id)
    assert {job.build_id: job.secrets for job in builder.jobs}[applied.build_id] == {"index": b"hunter2"}
    assert await files(bench) == {"/run/secrets/token": OLD, "/etc/key": KEY}
