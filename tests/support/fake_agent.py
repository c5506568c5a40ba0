"""A whole agent on the fake backend: `python -m tests.support.fake_agent run --state-dir ...`.

Nothing outside this file knows of it, so it is an example of what one more backend takes, too.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from edge_agent.host.commands import run_command
from edge_agent.host.findings import Finding, ok
from edge_agent.host.program import Credentials, Program
from edge_agent.host.unit import AgentKind
from edge_agent.runtime.backend import DeployBackend
from edge_agent.runtime.fake_backend import FakeBackend, FakeEngine, FakeImage, FakeProgram
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import AgentSettings, Option

ROOT = Path(__file__).resolve().parents[2]
# The one image that the fake registry has.
DIGEST = "sha256:" + "a" * 64
LINES = ("one", "two", "three")
COMMAND = (sys.executable, "-m", "tests.support.fake_agent")


class FakeAgent:
    """The process, as a test handles it."""

    def __init__(self, state_dir: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        """`env` is added to the environment."""
        common = ("--advertise-host", "192.0.2.7", "--resync-interval", "900", "--log-level", "debug")
        self._arguments = ["run", "--state-dir", str(state_dir), *common, *options]
        self._env = {**os.environ, **(env or {})}
        self.log_file = state_dir / "agent.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND, *self._arguments, cwd=ROOT, env=self._env, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    async def signal(self, number: signal.Signals, *, seconds: float = 10) -> int:
        """Its exit code, once it has ended."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)
        return await self.ended(seconds=seconds)

    async def ended(self, *, seconds: float = 10) -> int:
        """Its exit code, once it has ended by itself."""
        if self._process is None:
            raise RuntimeError("not started")
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def __aenter__(self) -> "FakeAgent":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.signal(signal.SIGKILL)

    def log(self) -> str:
        return self.log_file.read_text()


async def _examine(_folder: Path) -> list[Finding]:
    return [ok("nothing is needed")]


def _backend(settings: AgentSettings, identity: Identity, _credentials: Credentials) -> DeployBackend:
    engine = FakeEngine()
    lines = (*LINES, *filter(None, [settings.own[LAST_LINE.name]]))
    engine.add_image(DIGEST, FakeImage(program=FakeProgram(lines=lines)))
    return FakeBackend(engine, owner=identity.owner)


LAST_LINE = Option("last_line", "", "what an instance says at last")
PROGRAM = Program(
    kind=AgentKind("longshore-fake-agent", "Longshore fake agent", Path("/var/lib/longshore-fake-agent")),
    runs_with="in memory",
    artifacts="images",
    backend=_backend,
    examine=_examine,
    options=[LAST_LINE],
)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, None))
