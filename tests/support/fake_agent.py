"""A whole agent in a process of its own, on the fake backend: `python -m tests.support.fake_agent --state-dir ...`."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_agent.runtime.identity import AlreadyRunning, Identity, load_identity, state_lock
from edge_agent.runtime.logs import configure_logging
from edge_agent.runtime.settings import AgentSettings

ROOT = Path(__file__).resolve().parents[2]
# The one image that the fake registry has.
DIGEST = "sha256:" + "a" * 64
LINES = ("one", "two", "three")


class FakeAgent:
    """The process, as a test handles it."""

    def __init__(self, state_dir: Path, *options: str) -> None:
        self._arguments = ["--state-dir", str(state_dir), *options]
        self.log_file = state_dir / "agent.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.fake_agent", *self._arguments, cwd=ROOT, stdout=log, stderr=log
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


def main(argv: Sequence[str]) -> int:
    """What the process runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--poll-interval", type=float, default=60.0)
    parser.add_argument("--resync-interval", type=float, default=900.0)
    arguments = parser.parse_args(argv)
    configure_logging("debug")
    settings = AgentSettings(
        state_dir=arguments.state_dir,
        advertise_host="192.0.2.7",
        poll_interval=arguments.poll_interval,
        resync_interval=arguments.resync_interval,
    )
    try:
        with state_lock(settings.state_dir):
            return _run(settings, load_identity(settings.state_dir))
    except AlreadyRunning as error:
        print(error, file=sys.stderr)
        return 1


def _run(settings: AgentSettings, identity: Identity) -> int:
    from edge_agent.host.process import run_process
    from edge_agent.runtime.agent import BackendFactory
    from edge_agent.runtime.fake_backend import FakeBackend, FakeEngine, FakeImage, FakeProgram

    def factory(_settings: AgentSettings, _identity: Identity) -> BackendFactory:
        engine = FakeEngine()
        engine.add_image(DIGEST, FakeImage(program=FakeProgram(lines=LINES)))
        return lambda _credential: FakeBackend(engine, owner=_identity.owner)

    return run_process(settings, identity, factory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
