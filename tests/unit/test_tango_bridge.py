"""The bridge to TANGO over a controller that a test scripts: what is answered, what is reported, what is kept."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from controller.bridge import worker
from controller.bridge.bridge import Bridge
from controller.bridge.folders import Folders, NotUsable, Work
from controller.bridge.journal import Journal
from controller.bridge.model import Entry, Key, Status, judged
from controller.bridge.reports import Manager
from controller.bridge.web import Pages
from controller.bridge.worker import Means
from controller.spec.loader import read_spec
from longshore.client import Answer
from longshore.failures import LongshoreError
from longshore.v1 import deployment_pb2, types_pb2
from tests.support.async_waiting import until
from tests.support.tango_manager import ModuleError, TangoManager

OLDER = """\
build:
  architecture: x86
  components: {{engine: pytorch, custom_packages: {{papi: [time, numpy]}}}}
deploy:
  type: PC_Server
  {name}entrypoint: [output.py]
  network: {{service_host_port: "8901", service_container_port: 8902}}
optional: {{nn_file: output.py}}
"""
ALICE, BOB = Key("alice", "vision"), Key("bob", "vision")


class Scripted:
    """A controller of which only the states exist. `away`: so many calls find nobody. `uploads`: they end once set."""

    def __init__(self) -> None:
        self.deployed: list[tuple[Key, str, bytes, str]] = []
        self.stopped: list[tuple[Key, str]] = []
        self.answers: dict[tuple[Key, str], Answer] = {}
        self.away = 0
        self.tried = self.uploading = ""
        self.uploads = asyncio.Event()
        self.uploads.set()
        self.refusal: LongshoreError | None = None

    async def deploy(self, key: Key, work: Work, request_id: str) -> str:
        self.tried = work.name
        self._reach()
        self.uploading = work.name
        await self.uploads.wait()
        if self.refusal:
            raise self.refusal
        self.deployed.append((key, work.name, work.spec, request_id))
        self.say(key, work.name, "BUILDING")
        return work.name

    async def look(self, key: Key, name: str) -> Answer | None:
        self._reach()
        return self.answers.get((key, name))

    async def newest(self, key: Key) -> Answer | None:
        self._reach()
        return next((answer for (whose, _), answer in self.answers.items() if whose == key), None)

    async def stop(self, key: Key, name: str) -> None:
        self.stopped.append((key, name))
        self.say(key, name, "STOPPING")

    def say(self, key: Key, name: str, state: str, reason: str = "", message: str = "") -> Answer:
        answer = Answer(deployment=deployed(state, reason, message, name))
        self.answers[key, name] = answer
        return answer

    def _reach(self) -> None:
        if self.away:
            self.away -= 1
            raise LongshoreError("UNAVAILABLE", "nobody there", code="UNAVAILABLE")


def deployed(state: str, reason: str = "", message: str = "", name: str = "vision") -> deployment_pb2.Deployment:
    value = deployment_pb2.DeploymentState.Value(f"DEPLOYMENT_STATE_{state}")
    return deployment_pb2.Deployment(name=name, revision=1, state=value, reason=reason, message=message)


def project_folder(shared: Path, key: Key, text: str = "", name: str = "deployment.yaml") -> Path:
    folder = shared / "common" / key.user_id / key.project_id
    (folder / "nn_model").mkdir(parents=True, exist_ok=True)
    (folder / "output.py").write_text("print('hello')\n")
    (folder / "nn_model" / "net.py").write_text("")
    # Whole at any time: a bridge may be reading the one before.
    (folder / ".new").write_text(text or OLDER.format(name=""))
    (folder / ".new").replace(folder / name)
    return folder


@asynccontextmanager
async def bridge_over(folder: Path, controller: Scripted, manager: TangoManager) -> AsyncIterator[Bridge]:
    """Leaving it is like a kill: nothing is finished, nothing is said."""
    reporter = Manager(manager.address, "ondevice_deploy")
    means = Means(Journal(folder / "state"), Folders(folder / "shared"), controller, reporter, first_pause=0.001)
    bridge = Bridge(means)
    runner = web.AppRunner(Pages(bridge).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    manager.module = f"http://127.0.0.1:{runner.addresses[0][1]}"
    bridge.resume()
    try:
        yield bridge
    finally:
        await bridge.close()
        await runner.cleanup()


async def ask(manager: TangoManager, path: str, key: Key) -> str:
    return await asyncio.to_thread(manager.ask, path, key.user_id, key.project_id)


async def endpoint(manager: TangoManager, key: Key) -> dict[str, object]:
    text = await asyncio.to_thread(manager.get, "/endpoint", key.user_id, key.project_id)
    answer: dict[str, object] = json.loads(text)
    return answer


async def test_workflow_of_two_users_with_one_project_name(tmp_path: Path) -> None:
    controller = Scripted()
    for key in (ALICE, BOB):
        project_folder(tmp_path / "shared", key)
    with TangoManager() as manager:
        async with bridge_over(tmp_path, controller, manager):
            assert await ask(manager, "/status_request", Key('""', '""')) == "ready"
            assert await ask(manager, "/status_request", ALICE) == "ready"
            assert {await ask(manager, "/start", key) for key in (ALICE, BOB)} == {"started"}
            await until(lambda: len(controller.deployed) == 2)
            assert await ask(manager, "/status_request", ALICE) == "building"
            controller.say(ALICE, "vision", "PROGRESSING")
            assert await ask(manager, "/status_request", ALICE) == "preparing"
            place = types_pb2.Endpoint(name="http", host="192.0.2.7", port=8901, scheme="http")
            answer = controller.say(ALICE, "vision", "READY")
            answer.deployment.endpoints.add(device_name="edge-7", endpoint=place)
            controller.say(BOB, "vision", "FAILED", "PackageNotFound", "no package python-math " + "x" * 200)
            await until(lambda: len(manager.reports) == 2)
            assert await ask(manager, "/status_request", ALICE) == "running"
            assert await ask(manager, "/status_request", BOB) == "failed"
            assert (await endpoint(manager, ALICE))["endpoints"] == [
                {"device": "edge-7", "name": "http", "address": "http://192.0.2.7:8901"}
            ]
            assert (await endpoint(manager, BOB))["reason"] == "PackageNotFound"
        assert manager.reported("alice", "vision") == ["completed"]
        assert manager.reported("bob", "vision") == ["failed"]
        assert {report[0] for report in manager.reports} == {"ondevice_deploy"}


async def test_stop_is_reported_once_nothing_runs(tmp_path: Path) -> None:
    controller = Scripted()
    project_folder(tmp_path / "shared", ALICE)
    with TangoManager() as manager:
        async with bridge_over(tmp_path, controller, manager):
            await ask(manager, "/start", ALICE)
            await until(lambda: len(controller.deployed) == 1)
            assert await ask(manager, "/stop", ALICE) == "finished"
            await until(lambda: controller.stopped == [(ALICE, "vision")])
            assert await ask(manager, "/status_request", ALICE) == "running"
            assert manager.reports == []
            controller.say(ALICE, "vision", "STOPPED")
            await until(lambda: manager.reported("alice", "vision") == ["stopped"])
            assert await ask(manager, "/status_request", ALICE) == "stopped"
        assert controller.stopped == [(ALICE, "vision")]


async def test_stop_during_an_upload_finds_what_the_file_is_called_by_then(tmp_path: Path) -> None:
    controller = Scripted()
    project_folder(tmp_path / "shared", ALICE)
    controller.uploads.clear()
    with TangoManager() as manager:
        controller.away = 1_000_000
        async with bridge_over(tmp_path, controller, manager):
            assert await ask(manager, "/start", ALICE) == "started"
            project_folder(tmp_path / "shared", ALICE, OLDER.format(name="name: edited\n  "))
            await until(lambda: controller.tried == "edited")
            controller.away = 0
            await until(lambda: controller.uploading == "edited")
            assert await ask(manager, "/stop", ALICE) == "finished"
            controller.uploads.set()
            await until(lambda: controller.stopped == [(ALICE, "edited")])


async def test_stop_while_the_controller_is_away_takes_nothing_back_of_what_it_said(tmp_path: Path) -> None:
    controller = Scripted()
    project_folder(tmp_path / "shared", ALICE)
    with TangoManager() as manager:
        async with bridge_over(tmp_path, controller, manager):
            await ask(manager, "/start", ALICE)
            await until(lambda: len(controller.deployed) == 1)
            controller.say(ALICE, "vision", "READY")
            await until(lambda: manager.reported("alice", "vision") == ["completed"])
            controller.away = 1_000_000
            assert await ask(manager, "/stop", ALICE) == "finished"
            assert await ask(manager, "/status_request", ALICE) == "running"


async def test_what_was_started_is_known_after_a_kill(tmp_path: Path) -> None:
    controller = Scripted()
    project_folder(tmp_path / "shared", ALICE)
    with TangoManager() as manager:
        controller.away = 1_000_000
        async with bridge_over(tmp_path, controller, manager):
            assert await ask(manager, "/start", ALICE) == "started"
        entry = Journal(tmp_path / "state").get(ALICE)
        assert entry is not None
        controller.away = 0
        async with bridge_over(tmp_path, controller, manager):
            await until(lambda: len(controller.deployed) == 1)
            assert controller.deployed[0][3] == entry.request_id
            await until(lambda: Journal(tmp_path / "state").all()[0].applied)
        controller.away = 1_000_000
        async with bridge_over(tmp_path, controller, manager):
            assert await ask(manager, "/status_request", ALICE) == "building"
            manager.refusals = 3
            controller.away = 0
            controller.say(ALICE, "vision", "READY")
            await until(lambda: manager.reported("alice", "vision") == ["completed"])
        assert (len(controller.deployed), manager.refusals) == (1, 0)


async def test_report_that_is_never_taken_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REPORT_TRIES", 3)
    controller = Scripted()
    controller.refusal = LongshoreError("INVALID_SPEC", "no such profile", code="INVALID_ARGUMENT")
    project_folder(tmp_path / "shared", ALICE)
    with TangoManager() as manager:
        manager.refusals = 100
        async with bridge_over(tmp_path, controller, manager):
            await ask(manager, "/start", ALICE)
            await until(lambda: all(entry.reported for entry in Journal(tmp_path / "state").all()))
            assert await ask(manager, "/status_request", ALICE) == "failed"
            assert (await endpoint(manager, ALICE))["message"] == "no such profile"
        assert (manager.refusals, manager.reports) == (97, [])


async def test_unknown_and_unusable_projects(tmp_path: Path) -> None:
    controller = Scripted()
    controller.say(BOB, "old", "READY")
    project_folder(tmp_path / "shared", ALICE, "deploy: {type: Galaxy_S22}\n")
    with TangoManager() as manager:
        async with bridge_over(tmp_path, controller, manager):
            assert await ask(manager, "/start", ALICE) == "error"
            assert await ask(manager, "/status_request", ALICE) == "failed"
            assert "Android" in str((await endpoint(manager, ALICE))["message"])
            assert await ask(manager, "/start", Key("..", "alice")) == "error"
            assert await ask(manager, "/start", Key("alice", "x" * 300)) == "error"
            assert await ask(manager, "/stop", Key("nobody", "nothing")) == "error"
            with pytest.raises(ModuleError, match="404"):
                await ask(manager, "/status_request", Key("nobody", "nothing"))
            assert await ask(manager, "/status_request", BOB) == "running"
            assert await ask(manager, "/stop", BOB) == "finished"
            await until(lambda: controller.stopped == [(BOB, "old")])
    assert controller.deployed == []


def test_older_form_goes_on_as_version_1(tmp_path: Path) -> None:
    project_folder(tmp_path, ALICE)
    work = Folders(tmp_path).work(ALICE)
    assert (work.name, work.files) == ("vision", (".",))
    assert work.spec.startswith(b"version: 1")
    assert read_spec(work.spec).warnings == ()
    assert any("time" in warning for warning in work.warnings)
    project_folder(tmp_path, ALICE, OLDER.format(name="name: edited\n  "), "deployment.yml")
    assert Folders(tmp_path).work(ALICE).name == "edited"
    with pytest.raises(NotUsable):
        Folders(tmp_path).work(Key("alice", "../../common/alice/vision"))


WORDS = [
    ("BUILDING", "building", None), ("PENDING", "preparing", None), ("PROGRESSING", "preparing", None),
    ("READY", "running", "completed"), ("DEGRADED", "preparing", None), ("FAILED", "failed", "failed"),
    ("STOPPING", "running", None), ("STOPPED", "stopped", "stopped"), ("DELETING", "running", None),
    ("DELETED", "stopped", "stopped"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "status", "end"), WORDS)
def test_every_state_has_a_word(state: str, status: str, end: str | None) -> None:
    seen = judged(Answer(deployment=deployed(state)))
    assert (seen.status, seen.end) == (status, end)


def test_no_state_is_left_out() -> None:
    states = deployment_pb2.DeploymentState.keys()[1:]
    assert {f"DEPLOYMENT_STATE_{state}" for state, _, _ in WORDS} == set(states)


def test_crash_loop_is_no_running() -> None:
    answer = Answer(deployment=deployed("DEGRADED"))
    answer.deployment.instances_ready = 1
    assert judged(answer).status == "running"
    status = types_pb2.InstanceStatus(revision=1, state=types_pb2.INSTANCE_STATE_BACKOFF, attempts=3, reason="Exited")
    answer.instances.add(status=status)
    assert (judged(answer).status, judged(answer).reason) == ("failed", "Exited")


def test_journal_reads_what_it_wrote_and_skips_what_is_damaged(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    entry = Entry(ALICE, "r-1", names=("old", "vision"), applied=True, end=Status.FAILED, reason="X", message="y")
    journal.put(entry)
    journal.put(Entry(BOB, "r-2"))
    (tmp_path / "broken.json").write_text("{")
    assert {kept.key: kept for kept in Journal(tmp_path).all()} == {ALICE: entry, BOB: Entry(BOB, "r-2")}
    journal.change(Entry(ALICE, "r-0"))
    assert journal.get(ALICE) == entry
