"""`longshore-controller` as an operator types it: an installation made, served, killed and served again."""

import os
import signal
import stat
from pathlib import Path

import pytest

from controller.setup import DataFolder
from tests.support.installation import OTHER_ADDRESS, Installation, Serving, runs
from tests.support.waiting import eventually


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path / "data")
    done = made.init()
    assert (done.returncode, done.stderr) == (0, "")
    return made


def answers(installation: Installation) -> None:
    """Afterwards the controller, its broker and its registry have answered."""
    with installation.client() as client:
        assert list(client.list_devices()) == []
    eventually(installation.broker_lets_in, seconds=60)
    eventually(installation.registry_asks_for_a_token, seconds=60)


def ended(pids: list[int]) -> None:
    eventually(lambda: not any(runs(pid) for pid in pids), why="nothing of it runs any more")


def servers_of(serving: Serving) -> list[int]:
    children = serving.children()
    return [children["mosquitto"], children["docker-registry"]]


def said_of(serving: Serving, server: str) -> list[str]:
    """What the log says that became of it."""
    lines = [line for line in serving.log().splitlines() if f"server={server}" in line]
    return [text for line in lines for text in ("has ended", "runs again", "cannot be started") if text in line]


def test_a_second_init_changes_nothing_and_says_so_in_one_line(installation: Installation) -> None:
    folder = DataFolder(installation.folder)
    before = {path: path.read_bytes() for path in installation.folder.rglob("*") if path.is_file()}
    again = installation.init()
    assert again.returncode == 1
    assert again.stderr == f"longshore-controller: {installation.folder / 'controller.yml'} exists already\n"
    assert {path: path.read_bytes() for path in installation.folder.rglob("*") if path.is_file()} == before
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.admin_context.stat().st_mode) == 0o600


def test_serve_answers_with_broker_and_registry_and_leaves_nothing_after_sigterm(installation: Installation) -> None:
    with installation.serving() as serving:
        answers(installation)
        children = servers_of(serving)
        assert serving.end(signal.SIGTERM) == 0
        assert not any(runs(pid) for pid in children)
    assert "Traceback" not in serving.log()


def test_broker_and_registry_answer_at_all_addresses_of_the_machine(installation: Installation) -> None:
    """Devices come by another one than that which the machine's own name means on the machine itself."""
    with installation.serving():
        assert installation.broker_lets_in(OTHER_ADDRESS)
        assert installation.registry_asks_for_a_token(OTHER_ADDRESS)


def test_a_second_serve_disturbs_nothing_and_says_who_serves(installation: Installation) -> None:
    with installation.serving() as serving:
        before = servers_of(serving)
        second = installation.command("serve", "--with-broker", "--with-registry")
        assert second.returncode == 1
        said = f"a controller (process {serving.process.pid}) already serves {installation.folder}"
        assert second.stderr == f"longshore-controller: {said}\n"
        assert servers_of(serving) == before
        answers(installation)


def test_a_killed_broker_and_a_killed_registry_answer_again(installation: Installation) -> None:
    with installation.serving() as serving:
        before = servers_of(serving)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        ended(before)
        answers(installation)
        assert not set(servers_of(serving)) & set(before)
        for server in ("LocalBroker", "LocalRegistry"):
            eventually(lambda server=server: said_of(serving, server) == ["has ended", "runs again"])  # type: ignore[misc]
        children = servers_of(serving)
        serving.end(signal.SIGTERM)
        assert not any(runs(pid) for pid in children)


def test_a_killed_serve_takes_broker_and_registry_along_and_the_next_one_serves(installation: Installation) -> None:
    with installation.serving() as serving:
        children = servers_of(serving)
        serving.end(signal.SIGKILL)
    ended(children)
    with installation.serving():
        answers(installation)
