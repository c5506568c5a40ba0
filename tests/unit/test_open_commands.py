"""Commands that are open inside instances: all of their processes are found, and no others."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.runtime.command_processes import command_of, kill_command
from edge_agent.runtime.open_commands import OpenCommands
from tests.support.waiting import eventually

# A child in the same session, and one that has left it.
SCRIPT = "sleep 54321 & setsid sleep 54321 & wait"


@pytest.fixture
def leader() -> Iterator[int]:
    """A command with two children."""
    with subprocess.Popen(["sh", "-c", SCRIPT], start_new_session=True) as process:
        eventually(lambda: len(command_of(process.pid)) == 3)
        before = {found.pid for found in command_of(process.pid)}
        try:
            yield process.pid
        finally:
            for pid in before:
                if any(pid == found.pid for found in command_of(pid)):
                    os.kill(pid, signal.SIGKILL)


async def test_a_command_is_killed_with_its_children_and_nothing_else(leader: int) -> None:
    other = await asyncio.create_subprocess_exec("sleep", "54321")
    assert await kill_command(leader)
    assert command_of(leader) == []
    assert other.returncode is None
    other.kill()
    await other.wait()


async def test_processes_of_another_control_group_are_not_touched(leader: int) -> None:
    assert await kill_command(leader, "no-such-group")
    assert len(command_of(leader)) == 3


async def test_what_an_earlier_life_has_left_is_killed_once(tmp_path: Path, leader: int) -> None:
    OpenCommands(tmp_path / "commands").add(leader)
    await OpenCommands(tmp_path / "commands").kill_left()
    assert command_of(leader) == []
    assert list((tmp_path / "commands").iterdir()) == []


async def test_commands_of_this_life_and_closed_ones_are_left_alone(tmp_path: Path, leader: int) -> None:
    opened = OpenCommands(tmp_path / "commands")
    name = opened.add(leader)
    await opened.kill_left()
    opened.remove(name)
    await OpenCommands(tmp_path / "commands").kill_left()
    assert len(command_of(leader)) == 3


@pytest.mark.parametrize("change", [{"boot": "another"}, {"started": 1}, {"nonsense": 1}], ids=str)
async def test_a_number_that_belongs_to_somebody_else_now_is_not_killed(
    tmp_path: Path, leader: int, change: dict[str, object]
) -> None:
    name = OpenCommands(tmp_path).add(leader)
    (tmp_path / name).write_text(json.dumps({**json.loads((tmp_path / name).read_text()), **change}))
    await OpenCommands(tmp_path).kill_left()
    assert len(command_of(leader)) == 3
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_takes_nothing_ends_no_command(tmp_path: Path, leader: int) -> None:
    (tmp_path / "commands").write_text("a file where the folder should be")
    opened = OpenCommands(tmp_path / "commands")
    opened.remove(opened.add(leader))
    await opened.kill_left()
    assert len(command_of(leader)) == 3
