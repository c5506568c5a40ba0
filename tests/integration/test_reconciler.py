"""The reconciler over a fake engine: from a wish to what runs, and what is told of it."""

import asyncio
from typing import NoReturn

import pytest

from edge_agent.runtime.backend import BackendError, ExecResult
from edge_agent.runtime.convert import Broken
from edge_agent.runtime.fake_backend import FakeBackend, FakeInstance, FakeProgram
from edge_agent.runtime.model import Check, CommandProbe, Desired, RestartPolicy, State, TcpProbe, Workload
from tests.integration.fake_fixtures import device
from tests.support.agent_on_fake import CRASHES, Device, no_network
from tests.support.workloads import make_workload, until

__all__ = ["device"]

SHORT_DEADLINE = Check(TcpProbe("http"), period=0.05, timeout=0.5, deadline=0.3)


async def test_a_wish_becomes_a_ready_instance_and_each_step_is_told(device: Device) -> None:
    image = device.image(1)
    image.gate = asyncio.Event()
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.FETCHING)
        image.gate.set()
        status = await agent.until_ready()
        assert status.revision == 1
        assert status.artifact_digest == device.instance().workload.artifact.digest
        assert [(e.name, e.host, e.port, e.scheme) for e in status.endpoints] == [
            ("http", "10.0.0.7", device.service.port, "tcp")
        ]
        assert [(state, ready) for _, state, ready, _ in agent.told()] == [
            ("FETCHING", False),
            ("STARTING", False),
            ("RUNNING", True),
        ]
        assert agent.changes >= 3


async def test_a_fetch_of_what_is_here_is_not_told_and_a_start_always_is(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        assert [state for _, state, _, _ in agent.told()] == ["STARTING", "RUNNING"]


async def test_an_instance_is_not_running_before_its_check_answers(device: Device) -> None:
    await device.service.refuse()
    device.image(1)
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.STARTING)
        await until(lambda: (status := agent.status()) is not None and status.message == "connection refused")
        await device.service.listen()
        await agent.until_ready()


async def test_a_ready_instance_that_stops_answering_is_told_not_ready_and_ready_again(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        agent.wish(make_workload(readiness=Check(TcpProbe("http"), period=0.03, timeout=0.5, failure_threshold=2)))
        await agent.until_ready()
        await device.service.refuse()
        await agent.until_shows(State.RUNNING, "NotReady")
        status = agent.status()
        assert status is not None
        assert not status.ready
        assert status.message == "connection refused"
        await device.service.listen()
        await agent.until_ready()
        assert len(device.engine.of("d1")) == 1


async def test_progress_of_a_fetch_is_shown_in_bytes_without_filling_the_journal(device: Device) -> None:
    image = device.image(1)
    image.gate = asyncio.Event()
    async with device.agent() as agent:
        agent.wish(make_workload())
        await until(lambda: (status := agent.status()) is not None and status.fetched_bytes == 500)
        status = agent.status()
        assert status is not None
        assert status.total_bytes == 1000
        image.gate.set()
        await agent.until_ready()
        assert [state for _, state, _, _ in agent.told()] == ["FETCHING", "STARTING", "RUNNING"]


async def test_a_slow_fetch_of_one_deployment_does_not_hold_up_another(device: Device) -> None:
    device.image(1).gate = asyncio.Event()
    device.image(1, deployment_id="d2")
    async with device.agent() as agent:
        agent.wish(make_workload(), make_workload(deployment_id="d2"))
        await agent.until_ready("d2")
        await agent.until_shows(State.FETCHING)
        assert not device.engine.of("d1")


async def test_an_update_replaces_the_old_revision_after_the_new_one_is_here(device: Device) -> None:
    device.image(1)
    image = device.image(2)
    image.gate = asyncio.Event()
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        agent.wish(make_workload(2))
        await agent.until_shows(State.FETCHING, revision=2)
        status = agent.status()
        assert status is not None
        assert status.endpoints, "the old revision still serves"
        assert device.instance().workload.revision == 1
        image.gate.set()
        await agent.until_ready(revision=2)
        await until(lambda: len(device.engine.of("d1")) == 1)
        assert device.instance().workload.revision == 2


async def test_an_update_that_crashes_three_times_returns_to_the_revision_before(device: Device) -> None:
    device.image(1)
    device.image(2, CRASHES)
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        agent.wish(make_workload(2))
        await agent.until_shows(State.RUNNING, "RolledBack", revision=1)
        status = agent.status()
        assert status is not None
        assert status.ready
        assert "revision 2 was given up (CrashLoop: " in status.message
        assert list(status.last_lines) == ["loading the model", "no such file"]
        assert device.instance().workload.revision == 1
        failure = (2, "FAILED", False, "CrashLoop")
        assert agent.told().index(failure) < agent.told().index((1, "RUNNING", True, "RolledBack"))
        starts = device.engine.calls.count(("start", "d1"))
        assert starts == 4, "once before and three times the new one, beside the old one that served on"


async def test_an_update_that_never_becomes_ready_returns_to_the_revision_before(device: Device) -> None:
    device.image(1)
    device.image(2)
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        device.engine.exec_result = lambda *_: ExecResult(1, b"model not loaded")
        agent.wish(make_workload(2, readiness=Check(CommandProbe(("ask",)), timeout=0.5, deadline=0.3)))
        await agent.until_shows(State.RUNNING, "RolledBack", revision=1)
        assert (2, "FAILED", False, "ReadinessDeadline") in agent.told()
        status = agent.status()
        assert status is not None
        assert "model not loaded" in status.message


async def test_an_update_whose_start_fails_for_good_returns_to_the_revision_before(device: Device) -> None:
    device.image(1)
    error = BackendError("CommandNotFound", "there is no /serve in the image", retryable=False)
    device.image(2, FakeProgram(start_error=error))
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        agent.wish(make_workload(2))
        await agent.until_shows(State.RUNNING, "RolledBack", revision=1)
        assert (2, "FAILED", False, "CommandNotFound") in agent.told()


async def test_what_failed_is_not_tried_again_by_the_next_life_of_the_agent_but_a_new_revision_is(
    device: Device,
) -> None:
    device.image(1)
    device.image(2, CRASHES)
    device.image(3)
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_ready()
        agent.wish(make_workload(2))
        await agent.until_shows(State.RUNNING, "RolledBack", revision=1)
    starts = device.engine.calls.count(("start", "d1"))
    async with device.agent() as agent:
        agent.wish(make_workload(2))
        await agent.until_ready(revision=1)
        assert device.engine.calls.count(("start", "d1")) == starts
        agent.wish(make_workload(3))
        await agent.until_ready(revision=3)


async def test_a_service_that_crashes_backs_off_with_its_exit_code_and_last_lines(device: Device) -> None:
    device.image(1, CRASHES)
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.BACKOFF, "Exited")
        status = agent.status()
        assert status is not None
        assert status.exit_code == 3
        assert list(status.last_lines) == ["loading the model", "no such file"]
        assert status.next_try.seconds > 0
        await agent.until_shows(State.BACKOFF, "CrashLoop")
        status = agent.status()
        assert status is not None
        assert (status.attempts, status.restarts) == (2, 1)
        assert not any(ready for _, _, ready, _ in agent.told())


async def test_a_service_that_never_answers_is_stopped_at_its_deadline_and_tried_again(device: Device) -> None:
    await device.service.refuse()
    device.image(1, FakeProgram(lines=("waiting for the moon",)))
    async with device.agent() as agent:
        agent.wish(make_workload(readiness=SHORT_DEADLINE))
        await agent.until_shows(State.BACKOFF, "ReadinessDeadline")
        status = agent.status()
        assert status is not None
        assert "connection refused" in status.message
        assert list(status.last_lines) == ["waiting for the moon"]
        assert not status.endpoints
        await until(lambda: not device.engine.running())
        await device.service.listen()
        await agent.until_ready()


async def test_a_port_that_is_taken_backs_off_until_it_is_free(device: Device) -> None:
    device.image(1)
    device.engine.fail_next("start", BackendError("PortInUse", "port 80 is taken", retryable=True))
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.BACKOFF, "PortInUse")
        await agent.until_ready()


async def test_an_image_that_does_not_exist_fails_for_good(device: Device) -> None:
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.FAILED, "ImageNotFound")


async def test_a_registry_that_does_not_answer_is_tried_again(device: Device) -> None:
    image = device.image(1)
    image.error = no_network()
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_shows(State.BACKOFF, "ImagePullFailed")
        image.error = None
        await agent.until_ready()


@pytest.mark.parametrize(
    ("policy", "exit_code", "state", "reason"),
    [
        (RestartPolicy.NEVER, 0, State.STOPPED, "Completed"),
        (RestartPolicy.ON_FAILURE, 0, State.STOPPED, "Completed"),
        (RestartPolicy.NEVER, 4, State.FAILED, "Exited"),
        (RestartPolicy.ON_FAILURE, 4, State.BACKOFF, "Exited"),
    ],
)
async def test_a_workload_that_ends_is_treated_as_its_restart_policy_says(
    device: Device, policy: RestartPolicy, exit_code: int, state: State, reason: str
) -> None:
    device.image(1, FakeProgram(runs_for=0.0, exit_code=exit_code))
    async with device.agent() as agent:
        agent.wish(make_workload(restart=policy))
        await agent.until_shows(state, reason)


async def test_a_death_is_seen_at_once_and_the_instance_started_again(device: Device) -> None:
    device.image(1)
    async with device.agent(resync=3600.0) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        first = device.instance()
        device.engine.crash(first.handle, 137, "OutOfMemory")
        await agent.until_shows(State.BACKOFF, "OutOfMemory")
        status = await agent.until_ready()
        assert status.restarts == 1
        assert status.exit_code == 137
        assert device.instance().handle != first.handle


async def test_a_death_without_a_hint_is_seen_by_the_periodic_look(device: Device) -> None:
    device.image(1)
    async with device.agent(resync=0.2) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        instance = device.instance()
        instance.exit_code, instance.finished_at = 1, instance.started_at + 1
        await agent.until_shows(State.BACKOFF, "Exited")


async def test_a_stopped_deployment_is_gone_but_keeps_what_was_fetched(device: Device) -> None:
    device.image(1)
    async with device.agent(prune_interval=0.0, prune_after_quiet=0.0) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        agent.wish(make_workload(), stopped=frozenset({"d1"}))
        await agent.until_shows(State.STOPPED, "StoppedByUser")
        assert not device.engine.instances
        await until(lambda: ("prune", "") in device.engine.calls)
        assert device.engine.present
        agent.wish(make_workload())
        await agent.until_ready()


async def test_a_deployment_that_is_not_wished_any_more_is_removed_and_its_artifact_pruned(device: Device) -> None:
    device.image(1)
    async with device.agent(prune_interval=0.0, prune_after_quiet=0.0) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        agent.wish()
        await until(lambda: agent.status() is None)
        assert not device.engine.instances
        assert agent.told()[-1] == (1, "STOPPED", False, "Removed")
        await until(lambda: not device.engine.present)
        assert agent.database.workloads() == []


async def test_a_newer_wish_interrupts_a_fetch_that_nobody_needs_any_more(device: Device) -> None:
    device.image(1).gate = asyncio.Event()
    device.image(2)
    async with device.agent() as agent:
        agent.wish(make_workload(1))
        await agent.until_shows(State.FETCHING, revision=1)
        agent.wish(make_workload(2))
        await agent.until_ready(revision=2)


async def test_a_workload_that_makes_no_sense_is_reported_and_left_alone(device: Device) -> None:
    device.image(1)
    device.image(1, deployment_id="d2")
    async with device.agent() as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        broken = Broken("d1", 2, "the artifact has no digest")
        agent.reconciler.set_desired(Desired(2, (make_workload(deployment_id="d2"),)), (broken,))
        await agent.until_ready("d2")
        await agent.until_shows(State.FAILED, "InvalidWorkload", revision=2)
        assert device.instance("d1").runs


async def test_the_running_instance_is_the_one_whose_log_a_user_wants(device: Device) -> None:
    device.image(1)
    async with device.agent() as agent:
        assert agent.reconciler.handle_of("d1") is None
        agent.wish(make_workload())
        await agent.until_ready()
        assert agent.reconciler.handle_of("d1") == device.instance().handle
        handle = device.instance().handle
        device.engine.crash(handle)
        await agent.until_shows(State.BACKOFF)
        assert agent.reconciler.handle_of("d1") == handle


async def test_a_fault_of_the_backend_is_told_and_does_not_end_the_care_for_the_rest(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.image(1)
    device.image(1, deployment_id="d2")
    launch = device.engine.launch

    def faulty(owner: str, workload: Workload) -> FakeInstance:
        if workload.deployment_id == "d1":
            raise KeyError("HostPort")
        return launch(owner, workload)

    monkeypatch.setattr(device.engine, "launch", faulty)
    async with device.agent() as agent:
        agent.wish(make_workload(), make_workload(deployment_id="d2"))
        await agent.until_ready("d2")
        await agent.until_shows(State.BACKOFF, "AgentError")
        status = agent.status()
        assert status is not None
        assert "KeyError" in status.message


async def test_a_list_that_fails_for_no_known_reason_is_told_and_asked_for_again(device: Device) -> None:
    device.image(1)
    device.engine.fail_next("list", KeyError("SIGRTMIN+3"))
    async with device.agent() as agent:
        agent.wish(make_workload())
        await until(
            lambda: agent.reconciler.condition == "AgentError: the agent failed at list: KeyError: 'SIGRTMIN+3'"
        )
        await agent.until_ready()
        assert agent.reconciler.condition == ""


async def test_faults_of_what_tells_of_the_backend_do_not_end_the_care(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: FakeBackend) -> NoReturn:
        raise KeyError("Version")

    device.image(1)
    for verb in ("probe", "watch"):
        monkeypatch.setattr(FakeBackend, verb, fails)
    async with device.agent(resync=0.1) as agent:
        agent.wish(make_workload())
        await agent.until_ready()
        assert agent.reconciler.condition == "AgentError: the agent failed at probe: KeyError: 'Version'"
        died = device.instance().handle
        device.engine.crash(died)
        await until(lambda: any(i.runs for i in device.engine.of("d1") if i.handle != died))
