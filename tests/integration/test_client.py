"""The Python client against a real controller that crashes and comes back."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from longshore.calls import Deadline
from longshore.client import Client, project
from longshore.failures import LongshoreError, WaitTimeout
from longshore.sources import collect
from longshore.uploads import PIECE, UploadProgress
from longshore.v1 import event_pb2
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.waiting import eventually

# No registry of this name exists: the build is tried again and again, and no test waits for it.
SPEC = """\
version: 1
name: {name}
build: {{base: registry.invalid/nothing:1, files: [{files}]}}
deploy:
  entrypoint: [serve]
  network: {{ports: [{{name: http, container: 8080}}]}}
targets: [{{profile: x86-cpu}}]
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as made:
        yield made


@pytest.fixture
def client(stack: SyncStack) -> Iterator[Client]:
    with stack.client() as made:
        yield made


def spec_file(folder: Path, name: str = "digits", *files: str) -> Path:
    path = folder / "deployment.yml"
    path.write_text(SPEC.format(name=name, files=", ".join(files)))
    return path


def test_upload_sends_each_content_once(client: Client, tmp_path: Path) -> None:
    content = os.urandom(3 * PIECE + 17)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    seen: list[UploadProgress] = []
    entries = client.upload(collect(tmp_path, ["a", "b", "empty"]), seen.append)
    assert [entry.path for entry in entries] == ["a", "b", "empty"]
    assert (seen[-1].sent_bytes, seen[-1].total_bytes) == (len(content), len(content))
    seen.clear()
    client.upload(collect(tmp_path, ["a", "b", "empty"]), seen.append)
    assert seen == []


def test_upload_goes_on_after_the_controller_crashed(stack: SyncStack, client: Client, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(150 * PIECE))
    crashed = threading.Event()

    def crash_once(progress: UploadProgress) -> None:
        if progress.sent_bytes > 60 * PIECE and not crashed.is_set():
            crashed.set()
            stack.crash_controller()
            threading.Thread(target=stack.start_controller).start()

    sources = collect(tmp_path, ["model"])
    client.upload(sources, crash_once)
    assert crashed.is_set()
    again: list[UploadProgress] = []
    client.upload(sources, again.append)
    assert again == []
    eventually(lambda: client.list_builds() is not None)


def test_same_request_id_makes_one_build(client: Client, tmp_path: Path) -> None:
    path, owner = spec_file(tmp_path), project("alice", "once")
    builds = [client.build(path, owner, request_id="r1") for _ in range(2)]
    assert builds[0].id == builds[1].id
    assert client.build(path, owner).id != builds[0].id
    assert {build.id for build in client.list_builds(owner)} >= {builds[0].id}


def test_events_come_without_gap_or_repeat_across_a_crash(stack: SyncStack, client: Client, tmp_path: Path) -> None:
    owner, seen = project("alice", "events"), list[event_pb2.Event]()
    deadline = Deadline.after(60)

    def watch() -> None:
        for event in client.watch_events(owner, follow=True, deadline=deadline):
            seen.append(event)
            if event.deployment_id == last.get("id"):
                return

    last: dict[str, str] = {}
    watcher = threading.Thread(target=watch)
    watcher.start()
    client.deploy(spec_file(tmp_path, "first"), owner)
    eventually(lambda: len(seen) > 0)
    stack.crash_controller()
    stack.start_controller()
    last["id"] = client.deploy(spec_file(tmp_path, "second"), owner).deployment.id
    watcher.join(60)
    assert not watcher.is_alive()
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    stored = list(client.watch_events(owner, after=2))
    assert stored[0].number == 3
    for name in ("first", "second"):
        client.delete(client.find_deployment(owner, name).deployment.id)


def test_problems_of_a_spec_are_all_told_with_their_places(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "deployment.yml"
    path.write_text(SPEC.format(name="Bad_Name", files="").replace("x86-cpu", "x86-cpuu"))
    with pytest.raises(LongshoreError) as caught:
        client.deploy(path, project("alice", "bad"))
    assert caught.value.reason == "INVALID_SPEC"
    assert [(problem.path, problem.line) for problem in caught.value.problems] == [
        ("name", 2),
        ("targets[0].profile", 7),
    ]
    assert "did you mean 'x86-cpu'?" in caught.value.problems[1].message
    assert list(client.list_deployments(project("alice", "bad"))) == []


def test_many_problems_still_arrive(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "deployment.yml"
    path.write_text(SPEC.format(name="many", files=", ".join(["../up"] * 300)))
    with pytest.raises(LongshoreError) as caught:
        client.build(path, project("alice", "bad"))
    assert caught.value.invalid
    assert len(caught.value.problems) >= 20


def test_unknown_things_are_not_found(client: Client) -> None:
    for call in (
        lambda: client.get_build("nosuch"),
        lambda: client.get_deployment("nosuch"),
        lambda: client.find_deployment(project("alice", "none"), "nosuch"),
        lambda: client.get_device("nosuch"),
        lambda: list(client.read_build_log("nosuch")),
    ):
        with pytest.raises(LongshoreError) as caught:
            call()
        assert caught.value.code == "NOT_FOUND"
        assert "nosuch" in caught.value.message


def test_wrong_token_and_wrong_certificate_are_refused(stack: SyncStack) -> None:
    address, ca = stack.stack.settings.public.address, stack.stack.ca.certificate_pem
    with Client(address, "wrong", ca) as stranger, pytest.raises(LongshoreError) as caught:
        list(stranger.list_builds())
    assert caught.value.unauthorized
    with Client(address, "wrong", None, patience=0.5) as distrustful, pytest.raises(LongshoreError) as caught:
        list(distrustful.list_builds())
    assert caught.value.unreachable


def test_waiting_ends_at_its_timeout_and_when_the_deployment_is_stopped(client: Client, tmp_path: Path) -> None:
    owner = project("alice", "waiting")
    applied = client.deploy(spec_file(tmp_path), owner)
    deployment = applied.deployment
    with pytest.raises(WaitTimeout):
        client.wait_until_ready(deployment.id, deployment.revision, after=applied.events_from, timeout=0.5)
    stopper = threading.Timer(0.3, client.stop, [deployment.id])
    stopper.start()
    with pytest.raises(LongshoreError) as caught:
        client.wait_until_ready(deployment.id, deployment.revision, timeout=30)
    assert caught.value.reason == "Stopped"
    stopper.join()


def test_waiting_outlasts_a_controller_that_is_away_for_longer_than_calls_are_tried(
    stack: SyncStack, client: Client, tmp_path: Path
) -> None:
    deployment = client.deploy(spec_file(tmp_path), project("alice", "outage")).deployment
    reasons: list[str] = []
    with stack.client(patience=0.2) as hasty:
        asked = threading.Event()

        def wait() -> None:
            try:
                hasty.wait_until_ready(deployment.id, 1, on_answer=lambda _: asked.set())
            except LongshoreError as failure:
                reasons.append(failure.reason)

        waiter = threading.Thread(target=wait)
        waiter.start()
        assert asked.wait(10)
        stack.crash_controller()
        with pytest.raises(LongshoreError):
            hasty.get_deployment(deployment.id)
        stack.start_controller()
        client.stop(deployment.id)
        waiter.join(60)
    assert reasons == ["Stopped"]


def test_lists_longer_than_a_page_come_whole_and_without_repeat(
    stack: SyncStack, client: Client, tmp_path: Path
) -> None:
    owner = project("alice", "pages")
    made = [client.deploy(spec_file(tmp_path, f"d{number}"), owner) for number in range(5)]
    with stack.client(page_size=2) as small:
        listed = [entry.id for entry in small.list_deployments(owner)]
        builds = [entry.id for entry in small.list_builds(owner)]
    assert listed == [applied.deployment.id for applied in reversed(made)]
    assert len(set(builds)) == 5
    for deployment_id in listed:
        client.delete(deployment_id)


def test_enroll_tokens_are_made_for_one_device_each(client: Client) -> None:
    tokens = {client.create_enroll_token(device_name=f"edge-{number}").token for number in range(3)}
    assert len(tokens) == 3
    assert list(client.list_devices()) == []
