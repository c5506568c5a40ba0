"""The `longshore` command, as a process, against a real controller."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edge_agent.runtime.enrollment import EnrollmentRequest, enroll_blocking
from edge_agent.runtime.facts import device_facts
from tests.integration.test_client import spec_file
from tests.support.recorded_machines import ODROID_M1
from tests.support.sync_stack import SyncStack, running_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncStack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as made:
        yield made


class Shell:
    """Runs the command with settings of its own."""

    def __init__(self, context: Path, project: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LONGSHORE_")}
        self.environment = {**kept, "LONGSHORE_CONTEXT": str(context), "LONGSHORE_PROJECT": project}

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "controller.cli.main", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr + done.stdout
        return done


@pytest.fixture
def shell(stack: SyncStack, request: pytest.FixtureRequest) -> Shell:
    """Each test has a project of its own."""
    return Shell(stack.context_file, request.node.name.replace("_", "-")[-60:].lstrip("-"))


def test_deployment_is_accepted_listed_stopped_and_deleted(shell: Shell, tmp_path: Path) -> None:
    file = str(spec_file(tmp_path))
    assert "digits revision 1 accepted" in shell("deploy", "-f", file).stdout
    assert "digits revision 2 accepted" in shell("deploy", "-f", file).stdout
    table = shell("deployments").stdout.splitlines()
    assert table[0].split()[:3] == ["NAME", "STATE", "READY"]
    assert table[1].startswith("digits  BUILDING  0/0")
    (entry,) = json.loads(shell("deployments", "-o", "json").stdout)
    assert (entry["name"], entry["revision"]) == ("digits", "2")
    assert yaml.safe_load(shell("deployments", "digits", "-o", "yaml").stdout)["deployment"]["id"] == entry["id"]
    assert shell("deployments", "-o", "name").stdout == "digits\n"
    assert shell("stop", "digits").stdout == "digits is stopped\n"
    assert " STOPPED " in shell("deployments").stdout
    assert shell("delete", "digits").stdout == "digits is deleted\n"
    assert shell("deployments", "-o", "name").stdout == ""
    assert shell("deployments", "--include-deleted", "-o", "name").stdout == "digits\n"
    assert shell("wait", "digits", "--for", "deleted").stdout == "digits is deleted\n"
    assert "nosuch" in shell("wait", "nosuch", "--for", "deleted", code=1).stderr


def test_history_and_difference_of_a_deployment_are_shown(shell: Shell, tmp_path: Path) -> None:
    file = spec_file(tmp_path)
    shell("deploy", "-f", str(file))
    file.write_text(file.read_text().replace("8080", "8081"))
    new = shell("deployments", "diff", "digits", "-f", str(file)).stdout.splitlines()
    assert new[2:] == ["- deploy.network.ports[http].container: 8080", "+ deploy.network.ports[http].container: 8081"]
    shell("deploy", "-f", str(file))
    assert shell("deployments", "diff", "digits").stdout.splitlines()[2:] == new[2:]
    assert shell("deployments", "history", "digits", "-o", "name").stdout == "2\n1\n"
    newest = shell("deployments", "history", "digits").stdout.splitlines()[1]
    assert newest.endswith("deploy.network.ports[http].container")
    assert " admin " in newest
    assert "has no revision before 2" in shell("deployments", "undo", "digits", code=1).stderr
    shell("delete", "digits")


def test_waiting_deploy_ends_with_3_at_its_timeout_and_says_what_it_waits_for(shell: Shell, tmp_path: Path) -> None:
    done = shell("deploy", "-f", str(spec_file(tmp_path)), "--wait", "--timeout", "1s", code=3)
    assert "digits revision 1 is not ready in time: BUILDING" in done.stderr
    shell("delete", "digits")


def test_events_are_numbered_from_one_and_can_be_read_from_any(shell: Shell, tmp_path: Path) -> None:
    shell("deploy", "-f", str(spec_file(tmp_path)))
    shell("delete", "digits")
    events = json.loads(shell("events", "-o", "json").stdout)
    assert [int(event["number"]) for event in events] == list(range(1, len(events) + 1))
    later = shell("events", "--after", "2", "-o", "name").stdout.split()
    assert later[0] == "3"
    of_deployment = shell("events", "--deployment", "digits").stdout
    assert "DELETED" in of_deployment
    of_kind = json.loads(shell("events", "--kind", "DEPLOYMENT", "--state", "DELETED", "-o", "json").stdout)
    assert {(event["kind"], event["state"]) for event in of_kind} == {("EVENT_KIND_DEPLOYMENT", "DELETED")}


def test_followed_events_come_as_json_lines_until_the_reader_leaves(shell: Shell, tmp_path: Path) -> None:
    shell("deploy", "-f", str(spec_file(tmp_path)))
    command = [sys.executable, "-m", "controller.cli.main", "events", "--follow", "-o", "json"]
    with subprocess.Popen(command, env=shell.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = json.loads(process.stdout.readline())
        process.terminate()
    assert first["number"] == "1"
    shell("delete", "digits")


def test_server_side_problem_and_missing_file_end_with_2(shell: Shell, tmp_path: Path) -> None:
    file = spec_file(tmp_path)
    file.write_text(file.read_text().replace("x86-cpu", "x86-cpuu"))
    done = shell("deploy", "-f", str(file), code=2)
    assert "7:21: targets[0].profile: unknown target profile 'x86-cpuu'; did you mean 'x86-cpu'?" in done.stderr
    file = spec_file(tmp_path, "digits", "model/missing.onnx")
    done = shell("build", "-f", str(file), code=2)
    assert "model/missing.onnx: no such file or folder" in done.stderr


def test_enroll_token_alone_goes_to_stdout(shell: Shell) -> None:
    done = shell("enroll-token", "--name", "edge-1", "--label", "site=hall-1", "--lifetime", "30m")
    assert len(done.stdout.split()) == 1
    assert "longshore-edge-agent enroll" in done.stderr
    assert json.loads(shell("enroll-token", "-o", "json").stdout)["expires"]
    assert shell("devices", "-o", "json").stdout == "[]\n"


def test_a_device_is_shown_and_deleted_by_its_name(shell: Shell, tmp_path: Path) -> None:
    token = shell("enroll-token", "--name", "edge-4", "--profile", "x86-cpu").stdout.strip()
    facts = device_facts("0.2", ODROID_M1.plant(tmp_path / "root"), folders=[tmp_path], uname_machine="aarch64")
    enroll_blocking(tmp_path / "agent", EnrollmentRequest(token, facts))
    assert shell("devices", "edge-4", "-o", "name").stdout == "edge-4\n"
    wide = shell("devices", "-o", "wide").stdout.splitlines()[1]
    assert "arm64  4     7.5 GiB  Hardkernel ODROID-M1  arm.com/mali, rockchip.com/npu" in wide
    shown = shell("devices", "facts", "edge-4").stdout
    assert "rockchip.com/npu: RK3568 NPU, driver 0.9.2, rockchip.com/npu=all" in shown
    assert shown in shell("devices", "edge-4").stdout
    assert json.loads(shell("devices", "facts", "edge-4", "-o", "json").stdout)["model"] == "Hardkernel ODROID-M1"
    assert shell("devices", "-o", "name").stdout == "edge-4\n"
    assert shell("devices", "label", "edge-4", "site=hall", "line=1").stdout == "edge-4: line=1,site=hall\n"
    assert shell("devices", "label", "edge-4", "line-").stdout == "edge-4: site=hall\n"
    assert shell("devices", "label", "edge-4", "a/b/c=" + "x" * 64, code=2).stderr
    assert "DRAINED by admin" in shell("devices", "drain", "edge-4", "--reason", "new disk").stdout
    assert ": new disk" in shell("devices", "edge-4").stdout
    assert shell("devices", "uncordon", "edge-4").stdout == "edge-4: OPEN\n"
    assert "CORDONED by admin" in shell("devices", "cordon", "edge-4").stdout
    assert shell("devices", "delete", "edge-4").stdout == "edge-4 is no device any more\n"
    assert "edge-4" in shell("devices", "delete", "edge-4", code=1).stderr
    assert shell("devices", "-o", "name").stdout == ""


def test_things_that_do_not_exist_end_with_1_and_their_name(shell: Shell) -> None:
    for command in (["deployments", "nosuch"], ["builds", "nosuch"], ["devices", "nosuch"], ["logs", "nosuch"]):
        assert "nosuch" in shell(*command, code=1).stderr
    assert "nosuch" in shell("logs", "--build", "nosuch", code=1).stderr
    assert "name a deployment" in shell("logs", code=2).stderr


def test_login_stores_a_context_that_works_and_refuses_a_wrong_token(
    stack: SyncStack, shell: Shell, tmp_path: Path
) -> None:
    admin = yaml.safe_load(stack.context_file.read_text())
    path = tmp_path / "context.yaml"
    arguments = ["login", "--context", str(path), "--address", admin["address"], "--ca", str(stack.stack.ca_file)]
    assert "refused the token" in shell(*arguments, "--token", "wrong", code=4).stderr
    assert not path.exists()
    shell(*arguments, "--token", admin["token"], "--user", "alice")
    assert shell("deployments", "--context", str(path)).stdout.startswith("NAME")


def test_unreachable_controller_ends_with_4_and_its_address(tmp_path: Path) -> None:
    path = tmp_path / "context.yaml"
    path.write_text("address: 127.0.0.1:1\ntoken: x\n")
    done = Shell(path, "p")("deployments", code=4)
    assert "cannot reach the controller at 127.0.0.1:1" in done.stderr


def test_log_of_a_build_is_shown(shell: Shell, tmp_path: Path) -> None:
    build_id = shell("build", "-f", str(spec_file(tmp_path)), "--detach", "-o", "name").stdout.strip()
    assert build_id in shell("builds").stdout
    assert json.loads(shell("builds", build_id, "-o", "json").stdout)["name"] == "digits"
    assert shell("logs", "--build", build_id, "--tail", "1").returncode == 0
