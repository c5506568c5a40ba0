"""Each call of docs/grpcurl.md works as it stands there: the real grpcurl against a real controller, no proto files."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from controller.local.stack import LocalStack
from edge_agent.runtime.enrollment import EnrollmentRequest, enroll_blocking
from longshore.client import Client, project
from longshore.v1.device_pb2 import DeviceFacts
from tests.support.grpcurl import HOW_TO_GET, find_grpcurl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("grpcurl")]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "grpcurl.md"
# No such registry exists: its builds wait for another try, and cost nothing.
SPEC = """
version: 1
name: {name}
build: {{base: "registry.invalid/{name}:1"}}
deploy: {{checks: {{readiness: {{command: {{command: [test, -e, /ready]}}}}}}}}
targets: [{{profile: x86-cpu}}]
"""


@dataclass(frozen=True)
class Example:
    """A block of the page; `fails` where the page says so."""

    command: str
    fails: bool


@dataclass(frozen=True)
class Ended:
    code: int
    output: str


def examples() -> list[Example]:
    found = re.findall(r"```sh( fails)?\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [Example(command, bool(fails)) for fails, command in found]


def title(example: Example) -> str:
    """The last words of a command name its test."""
    return "-".join(re.findall(r"[\w.]+", example.command.replace("$ADDRESS", ""))[-2:])


@pytest.fixture(scope="module")
def grpcurl() -> str:
    found = find_grpcurl()
    if found is None:
        pytest.skip(HOW_TO_GET)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(grpcurl: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """The page's variables, and a folder without any proto file to work in."""
    folder = tmp_path_factory.mktemp("grpcurl")
    async with LocalStack(folder / "controller") as stack:
        context = yaml.safe_load(stack.context_file.read_text())
        await asyncio.to_thread(fill, context, folder)
        yield {
            "PATH": f"{Path(grpcurl).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "ADDRESS": context["address"],
            "TOKEN": context["token"],
            "CA": str(stack.ca_file),
        }


def fill(context: dict[str, str], folder: Path) -> None:
    """Two deployments and two devices, so that there is something to read, and to delete."""
    with Client(context["address"], context["token"], context["ca"]) as client:
        for name in ("hello", "other"):
            path = folder / f"{name}.yml"
            path.write_text(SPEC.format(name=name))
            client.deploy(path, project("default", "default"))
        # The page's calls read it; each of them has to work alone, too.
        (folder / "id").write_text(next(iter(client.list_builds())).id)
        (folder / "deployment").write_text(next(iter(client.list_deployments())).id)
        for name in ("digits-model", "old-model"):
            client.push_volume(name, project("default", "default"), [folder / "hello.yml"])
        for name in ("edge-7", "edge-8"):
            token = client.create_enroll_token(device_name=name, profile="x86-cpu").token
            enroll_blocking(folder / name, EnrollmentRequest(token, DeviceFacts()))


async def run(command: str, environment: dict[str, str]) -> Ended:
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", command, env=environment, cwd=environment["HOME"], stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return Ended(process.returncode or 0, output.decode())


@pytest.mark.parametrize("example", examples(), ids=title)
async def test_example_of_the_page_does_what_the_page_says(example: Example, environment: dict[str, str]) -> None:
    ended = await run(example.command, environment)
    assert (ended.code != 0) == example.fails, ended.output
    assert ended.output.strip(), "it says nothing"


async def test_reflection_lists_all_services_of_the_contract(environment: dict[str, str]) -> None:
    listed = await run('grpcurl -cacert "$CA" -H "authorization: Bearer $TOKEN" "$ADDRESS" list', environment)
    services = {f"longshore.v1.{name}Service" for name in ("Agent", "Build", "Deployment", "Device", "Event", "Volume")}
    assert services <= set(listed.output.split())


async def test_calls_into_an_instance_that_no_device_runs_say_so(environment: dict[str, str]) -> None:
    calls = [one for one in examples() if re.search(r"ReadInstanceLog|/Exec|/PortForward", one.command)]
    assert len(calls) == 3
    for call in calls:
        assert "NO_SUCH_INSTANCE" in (await run(call.command, environment)).output


async def test_error_tells_its_reason_to_grpcurl(environment: dict[str, str]) -> None:
    call = """grpcurl -cacert "$CA" -H "authorization: Bearer $TOKEN" -d '{"id": "dep-0"}' "$ADDRESS" """
    ended = await run(call + "longshore.v1.DeploymentService/GetDeployment", environment)
    assert "Code: NotFound" in ended.output
    assert "NO_SUCH_DEPLOYMENT" in ended.output
