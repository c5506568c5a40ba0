"""Logs, commands and ports of an instance on a device that nobody can dial: as people use them, and on bad days."""

import asyncio
import base64
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from longshore.failures import LongshoreError
from longshore.v1 import deployment_pb2
from tests.support.async_waiting import until, until_holds
from tests.support.grpcurl import HOW_TO_GET, find_grpcurl
from tests.support.site import Site, running_site, spec_text, status_of

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("inside")]
ROOT = Path(__file__).resolve().parents[2]
PROJECT_OPTIONS = ("-u", "alice", "-p", "tests")
# What a router with address translation does: nothing comes in that was not asked for from inside.
NO_WAY_IN = ("-t", "mangle", "-A", "PREROUTING", "-i", "eth0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("inside"), enroll=False) as made:
        await made.device.run("iptables", *NO_WAY_IN)
        await made.enroll()
        await made.start_agent()
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(site: Site) -> deployment_pb2.Deployment:
    deployment = await site.deploy(spec_text("web", ANSWER="hello from behind"))
    await site.reaches(deployment, "READY")
    return deployment


@dataclass(frozen=True)
class Running:
    """A `longshore` command with pipes."""

    process: asyncio.subprocess.Process

    @property
    def stdin(self) -> asyncio.StreamWriter:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    async def ended(self, data: bytes = b"") -> tuple[int, bytes, str]:
        """Gives the last input; exit code and the rest of both outputs."""
        out, err = await asyncio.wait_for(self.process.communicate(data), 90)
        assert b"Traceback" not in err
        return self.process.returncode or 0, out, err.decode()

    async def says(self, text: bytes) -> None:
        async with asyncio.timeout(60):
            heard = b""
            while text not in heard:
                piece = await self.stdout.read(65536)
                assert piece, f"ended without {text!r}: {heard!r}"
                heard += piece


@asynccontextmanager
async def longshore(site: Site, *arguments: str) -> AsyncIterator[Running]:
    """The command, while the block lasts."""
    command, *rest = arguments
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller.cli.main", command, *PROJECT_OPTIONS, *rest,
        env=environment(site), stdin=pipe, stdout=pipe, stderr=pipe,
    )  # fmt: skip
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def environment(site: Site) -> dict[str, str]:
    return {**os.environ, "LONGSHORE_CONTEXT": str(site.stack.context_file)}


async def run(site: Site, *arguments: str, data: bytes = b"") -> tuple[int, bytes, str]:
    async with longshore(site, *arguments) as running:
        return await running.ended(data)


async def processes(site: Site, mark: int) -> int:
    """How many processes on the device have this number among their words."""
    script = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -cx '[0]*{mark}' || true"
    return int(await site.device.run("sh", "-c", script))


async def until_processes(site: Site, mark: int, count: int) -> None:
    async def so() -> bool:
        return await processes(site, mark) == count

    await until_holds(so)


async def test_command_gets_its_input_and_gives_both_outputs_and_its_exit_code(
    site: Site, service: deployment_pb2.Deployment
) -> None:
    data = os.urandom(3_000_000)
    code, out, err = await run(site, "exec", "-i", "web", "--", "sh", "-c", "cat; echo no >&2; exit 7", data=data)
    assert (code, out, err) == (7, data, "no\n")
    told = (site.folder / "controller" / "controller.log").read_text()
    assert re.search(r'"session begins".* program=sh', told)
    assert "exit 7" not in told
    code, out, err = await run(site, "exec", "web", "--", "sh", "-c", "cat; echo $ANSWER")
    assert (code, out, err) == (0, b"hello from behind\n", "")
    code, _, err = await run(site, "exec", "web", "--", "nonesuch")
    assert code == 127
    assert "nonesuch" in err


async def test_what_cannot_be_is_told_with_what_is_there(site: Site, service: deployment_pb2.Deployment) -> None:
    code, _, err = await run(site, "exec", "nosuch", "--", "ls")
    assert (code, "nosuch" in err) == (1, True)
    code, _, err = await run(site, "exec", "web", "--device", "moon", "--", "ls")
    assert (code, "it runs on: edge" in err) == (1, True)
    code, _, err = await run(site, "port-forward", "web", "0:metrics")
    assert (code, "its ports are: http" in err) == (1, True)
    code, _, err = await run(site, "port-forward", "web", "http:8080")
    assert (code, "such as 8080:http" in err) == (2, True)


class Terminal:
    """A person's terminal with a command in it."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self._site = site
        self._arguments = arguments
        self._outer, inner = pty.openpty()
        self.resize(33, 101, None)
        self.before = termios.tcgetattr(inner)
        self._inner = inner
        self.heard = ""

    def resize(self, rows: int, columns: int, process: asyncio.subprocess.Process | None) -> None:
        fcntl.ioctl(self._outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if process is not None:
            process.send_signal(signal.SIGWINCH)

    async def start(self) -> asyncio.subprocess.Process:
        asyncio.get_running_loop().add_reader(self._outer, self._hear)
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controller.cli.main", *self._arguments, env=environment(self._site),
            stdin=self._inner, stdout=self._inner, stderr=self._inner, start_new_session=True,
        )  # fmt: skip

    def _hear(self) -> None:
        self.heard += os.read(self._outer, 65536).decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._outer, keys.encode())

    async def shows(self, pattern: str) -> None:
        """Once this has appeared since the last time; what came before it is forgotten."""
        with contextlib.suppress(AssertionError):
            await until(lambda: re.search(pattern, self.heard), seconds=60)
        found = re.search(pattern, self.heard)
        assert found, f"{pattern!r} is not in {self.heard!r}"
        self.heard = self.heard[found.end() :]

    def settings(self) -> list[object]:
        return list(termios.tcgetattr(self._inner))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._outer)
        os.close(self._outer)
        os.close(self._inner)


async def test_shell_in_a_terminal_has_its_size_and_gets_every_key(
    site: Site, service: deployment_pb2.Deployment
) -> None:
    terminal = Terminal(site, "exec", *PROJECT_OPTIONS, "-it", "web", "--", "sh")
    process = await terminal.start()
    try:
        terminal.type("echo si''ze; stty size\r")
        await terminal.shows(r"size\r\n33 101\r\n")
        terminal.resize(50, 120, process)
        terminal.type("sleep 0.2; stty size\r")
        await terminal.shows(r"\r\n50 120\r\n")
        # Ctrl-C is the command's: the shell lives on.
        terminal.type("echo beg''in; sleep 31337; echo not rea''ched\r")
        await terminal.shows("begin")
        await until_processes(site, 31337, 1)
        terminal.type("\x03")
        await until_processes(site, 31337, 0)
        terminal.type("echo still he''re\r")
        await terminal.shows("still here")
        assert "not reached" not in terminal.heard
        terminal.type("exit 5\r")
        assert await asyncio.wait_for(process.wait(), 60) == 5
        assert terminal.settings() == list(terminal.before)
    finally:
        terminal.close()


async def fetch(address: str, path: str = "/") -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as reply:
            return str(reply.read().decode())

    return await asyncio.to_thread(get)


@asynccontextmanager
async def forwarded(site: Site, ports: str = "0:http") -> AsyncIterator[tuple[Running, str]]:
    """`longshore port-forward`, and where it listens."""
    async with longshore(site, "port-forward", "web", ports) as running:
        line = (await asyncio.wait_for(running.stdout.readline(), 60)).decode()
        assert "reaches port http of web" in line
        yield running, line.split()[0]


async def test_port_is_reached_by_many_at_once_while_another_reads_the_log_slowly(
    site: Site, service: deployment_pb2.Deployment
) -> None:
    (endpoint,) = status_of(await site.state(service)).endpoints
    with pytest.raises(OSError, match="timed out"):
        await asyncio.to_thread(urllib.request.urlopen, f"http://{endpoint.host}:{endpoint.port}/", timeout=2)
    async with longshore(site, "logs", "web", "--follow") as slow, forwarded(site) as (forwarding, address):
        await slow.says(b"mode ok")
        # Far more than all the pipes hold: nobody reads it for now.
        script = "n=0; while [ $n -lt 40000 ]; do echo line $n ................; n=$((n+1)); done > /proc/1/fd/1"
        code, _, _ = await run(site, "exec", "web", "--", "sh", "-c", script)
        assert code == 0
        answers = await asyncio.gather(*(fetch(address, f"/{number}") for number in range(20)))
        assert answers == ["hello from behind"] * 20
        await slow.says(b"line 39999 ")
        forwarding.process.send_signal(signal.SIGINT)
        code, _, _ = await forwarding.ended()
        assert code == 130
        with pytest.raises(OSError, match="refused"):
            await fetch(address)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_command_ends_with_its_client(
    site: Site, service: deployment_pb2.Deployment, how: signal.Signals
) -> None:
    async with longshore(site, "exec", "web", "--", "sh", "-c", "sleep 4242 & sleep 4242; wait") as running:
        await until_processes(site, 4242, 2)
        running.process.send_signal(how)
        await running.process.wait()
        await until_processes(site, 4242, 0)


async def test_command_ends_with_its_client_that_did_not_read_what_it_says(
    site: Site, service: deployment_pb2.Deployment
) -> None:
    script = "sleep 4343 & while :; do echo and so on; done"
    async with longshore(site, "exec", "-i", "web", "--", "sh", "-c", script) as running:
        await until_processes(site, 4343, 1)
        await running.says(b"so on")
        # Nor does the command take its input.
        running.stdin.write(b"x" * 10_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running.stdin.drain(), 2)
        running.process.kill()
        await until_processes(site, 4343, 0)


async def test_lost_link_of_a_second_is_not_noticed(site: Site, service: deployment_pb2.Deployment) -> None:
    async with longshore(site, "exec", "-i", "web", "--", "cat") as running, forwarded(site) as (_, address):
        running.stdin.write(b"before ")
        await running.says(b"before ")
        await site.device.link(up=False)
        running.stdin.write(b"meanwhile ")
        fetching = asyncio.create_task(fetch(address))
        await asyncio.sleep(1)
        await site.device.link(up=True)
        await running.says(b"meanwhile ")
        assert await fetching == "hello from behind"
        code, out, _ = await running.ended(b"after")
        assert (code, out) == (0, b"after")


async def test_killed_agent_ends_the_call_with_an_error_and_nothing_stays(
    site: Site, service: deployment_pb2.Deployment
) -> None:
    async with (
        longshore(site, "exec", "web", "--", "sleep", "4444") as running,
        forwarded(site) as (_, address),
    ):
        await until_processes(site, 4444, 1)
        assert await fetch(address) == "hello from behind"
        before = await site.containers()
        await site.stop_agent(kill=True)
        code, _, err = await running.ended()
        assert code == 1
        assert "broke before the end" in err
        await site.start_agent()
        # The next life of the agent finds the command that nobody listens to any more.
        await until_processes(site, 4444, 0)
        await site.reaches(service, "READY")
        assert await fetch(address) == "hello from behind"
        assert await site.containers() == before


async def test_log_of_the_previous_instance_is_there_after_a_crash_and_a_restart_of_the_agent(site: Site) -> None:
    crashing = await site.deploy(spec_text("frail", ANSWER="frail"))
    await site.reaches(crashing, "READY")
    code, _, err = await run(site, "logs", "frail", "--previous")
    assert (code, "keeps no log of an earlier instance" in err) == (1, True)
    code, _, _ = await run(
        site, "exec", "frail", "--", "sh", "-c", "echo my last words > /proc/1/fd/1; kill -9 1; kill 1"
    )
    await site.eventually(crashing, lambda answer: status_of(answer).restarts == 1 and status_of(answer).ready)
    await site.stop_agent()
    await site.start_agent()
    await site.reaches(crashing, "READY")
    code, out, _ = await run(site, "logs", "frail", "--previous", "--tail", "1")
    assert (code, out) == (0, b"my last words\n")
    await site.delete(crashing)


async def test_page_of_the_python_client_is_right_about_what_runs(
    site: Site, service: deployment_pb2.Deployment, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    section = page[page.index("## On the device") : page.index("## Errors")]
    names: dict[str, Any] = {"client": site.client}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert await site.call(names["count_words"], service.id, "how many words are these") == (5, 0)
    assert await site.call(names["ask"], service.id) == b"hello from behind"
    with pytest.raises(LongshoreError, match="keeps no log of an earlier instance"):
        await site.call(names["show_log"], service.id)
    assert capfd.readouterr().out.startswith("stdout ")


async def test_command_and_port_are_reached_with_grpcurl_alone(
    site: Site, service: deployment_pb2.Deployment, tmp_path: Path
) -> None:
    grpcurl = find_grpcurl()
    if grpcurl is None:
        pytest.skip(HOW_TO_GET)
    context = yaml.safe_load(site.stack.context_file.read_text())
    variables = {"ADDRESS": context["address"], "TOKEN": context["token"], "CA": str(site.stack.ca_file)}
    path = f"{Path(grpcurl).parent}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "deployment").write_text(service.id)
    page = (ROOT / "docs" / "grpcurl.md").read_text()
    answers = []
    for call in ("Exec", "PortForward"):
        (command,) = re.findall(rf"```sh fails\n([^`]*DeploymentService/{call} [^`]*)```", page)
        process = await asyncio.create_subprocess_exec(
            "bash", "-euc", command, env={**variables, "PATH": path}, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, output.decode()
        answers += re.findall(r'"(?:stdout|data)": "([^"]*)"', output.decode())
    words, *answer = [base64.b64decode(text) for text in answers]
    assert words == b"3\n"
    assert b"hello from behind" in b"".join(answer)
