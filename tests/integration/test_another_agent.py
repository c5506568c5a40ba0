"""What one more backend takes: its own files, and nothing in those that are there."""

import ast
import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from longshore.topics import Topic
from longshore.v1 import mqtt_pb2
from tests.support.agent_controller import Session
from tests.support.agent_links import Surroundings, surroundings, workload
from tests.support.async_waiting import until
from tests.support.fake_agent import COMMAND, LINES, ROOT, FakeAgent

SHARED = (
    "edge_agent/runtime",
    "edge_agent/host",
    "controller/rpc",
    "controller/devices",
    "controller/mqtt",
    "controller/deployments",
)
# Of the backends that there are; `fake` is the one with which the shared code is tested.
NAMES = re.compile("podman|virtualenv|baremetal", re.IGNORECASE)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with surroundings(tmp_path) as made:
        yield made


async def command(name: str, around: Surroundings, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, name, "--state-dir", str(around.state_dir), *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_an_agent_of_a_backend_that_nobody_knows_has_all_commands_and_its_own_settings(
    around: Surroundings,
) -> None:
    token = around.controller.token("twice")
    code, said = await command("enroll", around, token)
    assert (code, "is enrolled as crane-7; --force makes it another device" in said) == (1, True), said
    code, said = await command("enroll", around, "--force", "--name", "crane-8", token)
    assert (code, "enrolled as crane-8" in said) == (0, True), said
    assert '#last_line = ""' in (around.state_dir / "agent.toml").read_text()
    (around.state_dir / "agent.toml").write_text('last_line = "of the file"\n')
    device_id = json.loads((around.state_dir / "identity.json").read_text())["device_id"]
    around.controller.wish(device_id, [workload()])
    async with FakeAgent(around.state_dir) as agent:
        await until(lambda: any(each.ready for each in around.latest().instances))
        code, said = await command("status", around)
        assert (code, "agent        running" in said, "digits revision 1" in said) == (0, True, True), said
        session = around.controller.sessions["s1"] = Session()
        query = mqtt_pb2.LogQuery(deployment_id="deployment-1")
        invitation = mqtt_pb2.ChannelInvitation(session_id="s1", logs=query)
        around.observer.publish(device_id, Topic.CHANNEL, invitation)
        await until(session.ended.is_set)
        assert [line.text for line in session.lines] == [*LINES, "of the file"]
        await agent.signal(signal.SIGTERM)
    code, said = await command("doctor", around, "--json")
    assert "nothing is needed" in [found["what"] for found in json.loads(said)]
    code, said = await command("leave", around)
    assert (code, "crane-8 has left" in said) == (0, True), said
    assert around.controller.left == [device_id]


def test_what_agents_share_names_no_backend() -> None:
    named = [f"{path.relative_to(ROOT)}: {word}" for path in shared_files() for word in words(path)]
    assert named == []


def shared_files() -> Iterator[Path]:
    for folder in SHARED:
        yield from (ROOT / folder).rglob("*.py")


def words(path: Path) -> Iterator[str]:
    """What of the code names a backend; comments and docstrings may speak of them."""
    tree = ast.parse(path.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in said:
            yield from filter(NAMES.search, texts(node))


def texts(node: ast.AST) -> Iterator[str]:
    """The names and texts that the node itself holds."""
    for _, value in ast.iter_fields(node):
        if isinstance(value, str):
            yield value


def test_a_name_of_a_backend_is_found(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        '"""Of Podman."""\n# Podman\nimport edge_agent.podman.spec\nfrom x import PodmanY\n'
        'podman_url = f(virtualenv="a")\nprint("podman")\nfind(x).baremetal()\n'
    )
    assert sorted(words(tmp_path / "code.py")) == [
        "PodmanY", "baremetal", "edge_agent.podman.spec", "podman", "podman_url", "virtualenv",
    ]  # fmt: skip
