"""What users get on bad days: each part is taken away once, and each kind of broken service is deployed."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from longshore.v1 import deployment_pb2, device_pb2
from tests.support.site import PROJECT, Site, fetch, instance_state, running_site, spec_text, state_of, status_of

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("bad-days")]


@pytest.fixture(scope="module")
def builders_podman(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that the controller finds as `podman`: the real one, until a test puts another in its place."""
    program = tmp_path_factory.mktemp("programs") / "podman"
    program.symlink_to(str(shutil.which("podman")))
    return program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, builders_podman: Path) -> AsyncIterator[Site]:
    path = f"{builders_podman.parent}{os.pathsep}{os.environ['PATH']}"
    async with running_site(tmp_path_factory.mktemp("bad-days"), env={"PATH": path}) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady(site: Site) -> deployment_pb2.Deployment:
    """A service that is ready, and that nothing in this module may disturb."""
    deployment = await site.deploy(spec_text("steady", ANSWER="steady"))
    await site.reaches(deployment, "READY")
    return deployment


async def undisturbed(site: Site, steady: deployment_pb2.Deployment) -> bool:
    answer = await site.state(steady)
    return await fetch(answer) == "steady" and status_of(answer).restarts == 0


def built_anew(name: str) -> str:
    """A service that answers its name, with an image that no other has."""
    return spec_text(name, ANSWER=name).replace("build:\n", f"build:\n  workdir: /{name}\n")


async def follow_log(site: Site, name: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """`longshore logs NAME --follow`, and what it prints."""
    following = await site.start_longshore("logs", name, "--follow", "-u", "alice", "-p", "tests")
    assert following.stdout is not None
    return following, following.stdout


async def line_that_says(output: asyncio.StreamReader, text: str) -> None:
    """Returns once a line with this text was printed."""
    async with asyncio.timeout(30):
        while text not in (line := (await output.readline()).decode()):
            assert line, f"the output ended without {text!r}"


async def cut_off(following: asyncio.subprocess.Process) -> bool:
    """Whether the command ends by saying that this was not all."""
    _, error = await asyncio.wait_for(following.communicate(), 60)
    return following.returncode == 1 and "broke before the end" in error.decode()


async def test_service_that_crashes_at_start_backs_off_with_its_last_words(site: Site) -> None:
    crashing = await site.deploy(spec_text("crashing", MODE="crash"))
    answer = await site.eventually(
        crashing, lambda a: instance_state(a) == "BACKOFF" and status_of(a).attempts >= 2, why="a second crash"
    )
    status = status_of(answer)
    assert status.reason == "CrashLoop"
    assert status.exit_code == 1
    assert "the model file is missing" in list(status.last_lines)
    assert not status.ready
    assert state_of(answer) == "DEGRADED"
    assert answer.deployment.instances_ready == 0
    events = await site.call(lambda: list(site.client.watch_events(PROJECT, deployment_id=crashing.id)))
    assert not any(event.ready for event in events)
    await site.delete(crashing)


async def test_service_that_never_answers_its_check_is_never_ready(site: Site) -> None:
    silent = await site.deploy(spec_text("silent", deadline="2s", MODE="never-ready"))
    answer = await site.eventually(silent, lambda a: instance_state(a) == "BACKOFF", why="the deadline")
    status = status_of(answer)
    assert status.reason == "ReadinessDeadline"
    assert "503" in status.message
    assert "mode never-ready" in list(status.last_lines)
    events = await site.call(lambda: list(site.client.watch_events(PROJECT, deployment_id=silent.id)))
    assert not any(event.ready for event in events)
    await site.delete(silent)


async def test_port_that_is_taken_is_named_and_used_once_it_is_free(site: Site) -> None:
    first = await site.deploy(spec_text("first", host=18080, ANSWER="first"))
    await site.reaches(first, "READY")
    second = await site.deploy(spec_text("second", host=18080, ANSWER="second"))
    answer = await site.eventually(second, lambda a: instance_state(a) == "BACKOFF", why="the port is taken")
    assert status_of(answer).reason == "PortInUse"
    assert "18080" in status_of(answer).message
    await site.delete(first)
    assert await fetch(await site.reaches(second, "READY")) == "second"
    await site.delete(second)


async def test_package_that_does_not_exist_fails_the_deployment_and_leaves_nothing(site: Site) -> None:
    text = spec_text("typo").replace("build:\n", "build:\n  packages: {apt: [no-such-package-of-longshore]}\n")
    typo = await site.deploy(text, build=True)
    answer = await site.reaches(typo, "FAILED", "BuildFailed", seconds=240)
    assert "no-such-package-of-longshore" in answer.deployment.message
    build = await site.call(site.client.get_build, answer.deployment.build_id)
    (target,) = build.targets
    assert target.reason == "PackageNotFound"
    assert "apt-get install" in target.failed_step
    assert any("no-such-package-of-longshore" in line for line in target.last_lines)
    await site.delete(typo)


async def test_device_that_is_offline_is_waited_for(site: Site, steady: deployment_pb2.Deployment) -> None:
    await site.stop_agent()
    await site.seen_device(lambda device: device.presence == device_pb2.DEVICE_PRESENCE_OFFLINE)
    assert state_of(await site.reaches(steady, "DEGRADED", "DeviceOffline")) == "DEGRADED"
    late = await site.deploy(spec_text("late", ANSWER="late"))
    answer = await site.reaches(late, "PENDING", "DeviceOffline")
    assert "edge" in answer.deployment.message
    await site.start_agent()
    assert await fetch(await site.reaches(late, "READY")) == "late"
    await site.reaches(steady, "READY")
    assert await undisturbed(site, steady)
    await site.delete(late)


async def test_registry_that_is_down_delays_pushes_and_pulls(site: Site, steady: deployment_pb2.Deployment) -> None:
    await site.stack.registry.kill()
    fresh = await site.deploy(built_anew("fresh"), build=True)
    answer = await site.eventually(
        fresh, lambda a: a.deployment.reason == "RegistryUnreachable", seconds=120, why="the build waits"
    )
    assert state_of(answer) == "BUILDING"
    assert await undisturbed(site, steady)
    await site.stack.registry.start()
    assert await fetch(await site.reaches(fresh, "READY", seconds=180)) == "fresh"
    await site.delete(fresh)


async def test_builders_podman_that_is_broken_is_waited_for(
    site: Site, steady: deployment_pb2.Deployment, builders_podman: Path
) -> None:
    working = builders_podman.readlink()
    replace(builders_podman, "#!/bin/sh\necho 'its storage is broken' >&2\nexit 125\n")
    try:
        unbuilt = await site.deploy(built_anew("unbuilt"), build=True)
        answer = await site.reaches(unbuilt, "BUILDING", "PodmanUnavailable")
        assert "its storage is broken" in answer.deployment.message
        assert await undisturbed(site, steady)
    finally:
        builders_podman.unlink()
        builders_podman.symlink_to(working)
    assert await fetch(await site.reaches(unbuilt, "READY", seconds=180)) == "unbuilt"
    await site.delete(unbuilt)


def replace(program: Path, script: str) -> None:
    program.unlink()
    program.write_text(script)
    program.chmod(0o755)


async def test_device_that_cannot_reach_the_registry_backs_off_until_it_is_back(
    site: Site, steady: deployment_pb2.Deployment
) -> None:
    text = built_anew("pulled")
    built = await site.call(site.client.build, site.write(text), PROJECT, files=["server.py"])
    await site.call(site.client.wait_for_build, built.id, timeout=240)
    await site.stack.registry.kill()
    pulled = await site.deploy(text, build_id=built.id)
    answer = await site.eventually(pulled, lambda a: instance_state(a) == "BACKOFF", why="a pull that fails")
    assert status_of(answer).reason == "ImagePullFailed"
    await site.reaches(pulled, "DEGRADED", "ImagePullFailed")
    assert await undisturbed(site, steady)
    await site.stack.registry.start()
    assert await fetch(await site.reaches(pulled, "READY")) == "pulled"
    await site.delete(pulled)


async def test_log_that_is_followed_goes_on_until_the_device_loses_its_network(
    site: Site, steady: deployment_pb2.Deployment
) -> None:
    following, output = await follow_log(site, "steady")
    await line_that_says(output, "mode ok")
    await fetch(await site.state(steady), "/now")
    await line_that_says(output, "asked for /now")
    await site.device.link(up=False)
    try:
        assert await cut_off(following)
    finally:
        await site.device.link(up=True)
    await site.reaches(steady, "READY")
    assert await undisturbed(site, steady)


async def test_broker_that_is_down_leaves_services_alone_and_devices_poll(
    site: Site, steady: deployment_pb2.Deployment
) -> None:
    await site.stack.broker.kill()
    await site.seen_device(lambda device: device.presence == device_pb2.DEVICE_PRESENCE_UNKNOWN)
    answer = await site.reaches(steady, "DEGRADED", "DeviceUnknown")
    assert "edge" in answer.deployment.message
    before = await site.containers()
    unheard = await site.deploy(spec_text("unheard", ANSWER="unheard"))
    end = time.monotonic() + 60
    while len(await site.containers()) == len(before):
        assert time.monotonic() < end, site.logs()
        await asyncio.sleep(0.2)
    assert await undisturbed(site, steady)
    await site.stack.broker.start()
    assert await fetch(await site.reaches(unheard, "READY")) == "unheard"
    await site.reaches(steady, "READY")
    await site.delete(unheard)


async def test_controller_that_is_killed_disturbs_nothing_and_forgets_nothing(
    site: Site, steady: deployment_pb2.Deployment
) -> None:
    before = await site.containers()
    known = await site.state(steady)
    events = await site.call(lambda: list(site.client.watch_events(PROJECT)))
    await site.stack.controller.kill()
    assert await fetch(known) == "steady"
    await site.stack.start_controller()
    await site.reaches(steady, "READY")
    after = await site.call(lambda: list(site.client.watch_events(PROJECT)))
    assert after[: len(events)] == events
    assert [event.number for event in after] == list(range(1, len(after) + 1))
    assert await site.containers() == before
    assert await undisturbed(site, steady)


async def test_agent_that_is_killed_adopts_what_runs(site: Site, steady: deployment_pb2.Deployment) -> None:
    before = await site.containers()
    following, output = await follow_log(site, "steady")
    await line_that_says(output, "mode ok")
    await site.stop_agent(kill=True)
    assert await cut_off(following)
    await site.reaches(steady, "DEGRADED", "DeviceOffline")
    assert await fetch(await site.state(steady)) == "steady"
    await site.start_agent()
    await site.reaches(steady, "READY")
    assert await site.containers() == before
    assert await undisturbed(site, steady)


async def test_podman_that_is_broken_is_reported_and_waited_for(site: Site, steady: deployment_pb2.Deployment) -> None:
    await site.device.run("mount", "--bind", "/bin/false", "/usr/bin/podman")
    await site.device.run("sh", "-c", "pkill -KILL -f '[p]odman system service' || true")
    blocked = await site.deploy(spec_text("blocked", ANSWER="blocked"))
    seen = await site.seen_device(lambda device: device.agent_condition.startswith("Podman"))
    assert seen.presence == device_pb2.DEVICE_PRESENCE_ONLINE
    answer = await site.reaches(blocked, "PENDING", "PodmanUnavailable")
    assert answer.deployment.message.startswith("edge: podman")
    assert (instance_state(answer), status_of(answer).reason) == ("PENDING", "PodmanUnavailable")
    assert await undisturbed(site, steady)
    assert state_of(await site.state(steady)) == "READY"
    await site.device.run("umount", "/usr/bin/podman")
    assert await fetch(await site.reaches(blocked, "READY")) == "blocked"
    await site.seen_device(lambda device: device.agent_condition == "")
    await site.delete(blocked)


async def test_instance_that_dies_is_started_again_and_counted(site: Site) -> None:
    mortal = await site.deploy(spec_text("mortal", ANSWER="mortal"))
    answer = await site.reaches(mortal, "READY")
    name = await site.device.run("podman", "ps", "--filter", f"label=dev.longshore.deployment={mortal.id}", "-q")
    await site.device.run("podman", "kill", name.strip())
    answer = await site.eventually(mortal, lambda a: status_of(a).restarts == 1 and status_of(a).ready, why="a restart")
    assert await fetch(answer) == "mortal"
    await site.delete(mortal)


async def test_update_that_never_becomes_ready_returns_to_the_revision_before(site: Site) -> None:
    good = await site.deploy(spec_text("updated", ANSWER="good"))
    await site.reaches(good, "READY")
    await site.deploy(spec_text("updated", deadline="2s", MODE="never-ready"))
    answer = await site.eventually(
        good, lambda a: state_of(a) == "FAILED" and status_of(a).ready, why="the old revision is back"
    )
    status = status_of(answer)
    assert (status.revision, status.reason) == (1, "RolledBack")
    assert await fetch(answer) == "good"
    await site.delete(good)
