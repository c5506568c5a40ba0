"""The bridge's own program between a real controller and a program that speaks the Project Manager's side."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longshore.client import project
from longshore.v1 import deployment_pb2
from tests.support.sync_stack import SyncStack, running_stack
from tests.support.tango_manager import TangoManager
from tests.support.waiting import eventually

PATIENCE = 90
# No registry of this name exists: the build is tried again and again, and no test waits for it.
BUILDS = """\
build: {architecture: x86, accelerator: cpu, os: ubuntu, image_uri: "registry.invalid/nothing:1"}
deploy:
  type: PC_Server
  entrypoint: [/bin/serve]
  network: {service_host_ip: "None", service_host_port: "8901", service_container_port: 8902}
"""
# The controller has no such secret.
REFUSED = BUILDS + "  secrets: [{name: token}]\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as made:
        yield made


@contextmanager
def bridge(folder: Path, stack: SyncStack, manager: TangoManager) -> Iterator[None]:
    """The program while the block lasts; its end is a SIGKILL."""
    log = folder / "bridge.log"
    before = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "controller.bridge.main", "--shared", str(folder), "--manager", manager.address]
    command += ["--context", str(stack.context_file), "--state-dir", str(folder / "state"), "--port", "0"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        serving = re.compile(r"address=(http://127\.0\.0\.1:\d+)")
        eventually(lambda: serving.search(log.read_text()[before:]) is not None, seconds=PATIENCE)
        found = serving.search(log.read_text()[before:])
        assert found is not None
        manager.module = found[1]
        yield
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def add_project(folder: Path, user_id: str, project_id: str, text: str) -> None:
    place = folder / "common" / user_id / project_id
    place.mkdir(parents=True)
    (place / "deployment.yaml").write_text(text)


def test_projects_of_several_users_through_a_kill(stack: SyncStack, tmp_path: Path) -> None:
    add_project(tmp_path, "alice", "vision_1", BUILDS)
    add_project(tmp_path, "bob", "vision_1", BUILDS)
    add_project(tmp_path, "bob", "secretive", REFUSED)
    with TangoManager() as manager, stack.client() as client:
        with bridge(tmp_path, stack, manager):
            for user, name in (("alice", "vision_1"), ("bob", "vision_1"), ("bob", "secretive")):
                assert manager.ask("/status_request", user, name) == "ready"
                assert manager.ask("/start", user, name) == "started"
            for user in ("alice", "bob"):
                eventually(
                    lambda user=user: manager.ask("/status_request", user, "vision_1") == "building",  # type: ignore[misc]
                    seconds=PATIENCE,
                )
            eventually(lambda: manager.reported("bob", "secretive") == ["failed"], seconds=PATIENCE)
        manager.refusals = 2
        with bridge(tmp_path, stack, manager):
            assert manager.ask("/status_request", "alice", "vision_1") == "building"
            assert manager.ask("/status_request", "bob", "secretive") == "failed"
            assert "token" in manager.get("/endpoint", "bob", "secretive")
            assert manager.ask("/stop", "alice", "vision_1") == "finished"
            eventually(lambda: manager.reported("alice", "vision_1") == ["stopped"], seconds=PATIENCE)
            assert manager.ask("/status_request", "alice", "vision_1") == "stopped"
            assert manager.ask("/status_request", "bob", "vision_1") == "building"
        found = list(client.list_deployments(project("alice", "vision_1")))
        assert [(one.state, one.revision) for one in found] == [(deployment_pb2.DEPLOYMENT_STATE_STOPPED, 1)]
        assert [one.revision for one in client.list_deployments(user_id="bob")] == [1]
    assert manager.reported("bob", "vision_1") == []
