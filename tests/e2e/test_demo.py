"""`make demo`, run as people run it: held open, killed, run again in the same folder, and ended by Ctrl-C."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.builds.podman import Podman
from edge_agent.podman.spec import owner_label
from tests.support.building import BASE_CACHE, mounts_below
from tests.support.grpcurl import find_grpcurl

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("demo"), pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
LAST_LINE = re.compile(r"demo: (\d+)/\1 requests answered, accuracy 0\.\d+, deploy to ready [\d.]+ s")


@dataclass
class Demo:
    """A demonstration that runs, and what it has printed."""

    folder: Path
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, text: str) -> None:
        """Returns once it has printed a line with this text."""
        assert self.process.stdout is not None
        while text not in (self.lines or [""])[-1]:
            line = await self.process.stdout.readline()
            assert line, f"it ended without {text!r}:\n{self.output()}"
            self.lines.append(line.decode().rstrip("\n"))

    async def ended(self) -> int:
        """Its exit code."""
        rest, _ = await self.process.communicate()
        self.lines += rest.decode().splitlines()
        return self.process.returncode or 0

    def output(self) -> str:
        return "\n".join(self.lines)

    def found(self, pattern: str) -> str:
        """The first group of the pattern in what was printed."""
        found = re.search(pattern, self.output())
        assert found is not None, self.output()
        return found[1]

    @property
    def device(self) -> str:
        return str(json.loads((self.folder / "run" / "agent" / "identity.json").read_text())["device_id"])

    @property
    def registry(self) -> str:
        return self.found(r"registry (\S+)")

    def printed_commands(self) -> list[str]:
        """The lines that are said to look further."""
        _, _, below = self.output().partition("== look further")
        return [line.strip() for line in below.splitlines() if line.startswith("  ")]


@asynccontextmanager
async def running_demo(folder: Path, *options: str) -> AsyncIterator[Demo]:
    """It is killed where it still runs at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.demo", "--folder", str(folder), "--bases", str(BASE_CACHE), *options, cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Demo(folder, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_demo_answers_requests_is_held_open_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    async with running_demo(folder, "--keep") as demo:
        await demo.until("== held open")
        device, registry = demo.device, demo.registry
        assert len(containers_of(device)) == 1
        for command in demo.printed_commands():
            await works(command, demo.printed_commands()[0])
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended() == 0, demo.output()
    assert LAST_LINE.fullmatch(demo.lines[-1]), demo.output()
    assert containers_of(device) == []
    assert images_from(registry) == []
    assert left_in(folder) == []


async def test_demo_that_was_killed_is_cleaned_up_by_the_next_which_can_be_ended_at_any_time(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    async with running_demo(folder) as killed:
        await killed.until("RUN uv pip install")
    async with running_demo(folder) as demo:
        await demo.until("== clean up what a run that was killed has left")
        await demo.until("  controller ")
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended() == 1
    assert demo.lines[-1] == "demo: ended before its end; nothing of it is left"
    # A Podman service that the killed one has begun leaves by itself when it is idle.
    end = time.monotonic() + 30
    while left := left_in(folder):
        assert time.monotonic() < end, left
        await asyncio.sleep(0.2)


async def works(command: str, export: str) -> None:
    """Runs a command as it was printed, in a shell that has the printed variable; it says something."""
    grpcurl = find_grpcurl()
    if command == export or (command.startswith("grpcurl ") and grpcurl is None):
        return
    path = os.pathsep.join([os.environ["PATH"], *([str(Path(grpcurl).parent)] if grpcurl else [])])
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euc", f"{export}\n{command}"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert done.stdout.strip(), f"{command} says nothing"


def containers_of(device: str) -> list[str]:
    return _podman("ps", "-a", "-q", "--filter", f"label={owner_label(device)}")


def images_from(registry: str) -> list[str]:
    return [name for name in _podman("images", "-a", "--format", "{{.Repository}}") if name.startswith(f"{registry}/")]


def left_in(folder: Path) -> list[str]:
    """Processes, mounts and files that are of no use once no demonstration runs."""
    kept = {folder / "lock"}
    files = [str(path) for path in folder.iterdir() if path not in kept]
    run_folder = Podman(folder / "run" / "controller" / "builder").run_folder
    return [*processes_of(folder), *mounts_below(folder), *files, *([str(run_folder)] if run_folder.exists() else [])]


def processes_of(folder: Path) -> list[str]:
    """Those whose command or environment names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in told:
                found.append(told.decode(errors="replace").replace("\0", " ")[:300])
    return found


def _podman(*arguments: str) -> list[str]:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True).stdout.split()
