"""The agent's process: what ends it, with which exit code, and what it says then."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from controller.pki import CertificateAuthority
from edge_agent.host.process import run_process
from edge_agent.runtime.agent import BackendFactory
from edge_agent.runtime.backend import Observed
from edge_agent.runtime.fake_backend import FakeBackend
from edge_agent.runtime.identity import Identity, IdentityMaterial, commit_identity, prepare_folder
from edge_agent.runtime.settings import AgentSettings
from edge_agent.runtime.sync import DesiredSync

ROOT = Path(__file__).resolve().parents[2]
# Nothing listens there.
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    (tmp_path / "ca").mkdir()
    ca = CertificateAuthority.create(tmp_path / "ca")
    pair = ca.issue_client("device-1")
    key = pair.key_pem.encode()
    material = IdentityMaterial(
        device_id="device-1",
        device_name="crane-7",
        agent_address=NOWHERE,
        broker_address=NOWHERE,
        owner="device-1",
        key=key,
        certificate=pair.certificate_pem.encode(),
        ca=ca.certificate_pem.encode(),
    )
    return commit_identity(tmp_path / "state", prepare_folder(tmp_path / "state", key), material)


def _factory(backend: Callable[[], FakeBackend]) -> Callable[[AgentSettings, Identity], BackendFactory]:
    return lambda _settings, _identity: lambda _credential: backend()


def test_a_part_that_dies_ends_the_process_with_one_and_a_traceback(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fault(_: DesiredSync) -> None:
        raise ZeroDivisionError("a fault that no caller can expect")

    monkeypatch.setattr(DesiredSync, "run", fault)
    structlog.reset_defaults()
    settings = AgentSettings(state_dir=tmp_path / "state")
    with capture_logs() as logs:
        assert run_process(settings, identity, _factory(FakeBackend)) == 1
    (died,) = [entry for entry in logs if entry["event"] == "agent_died"]
    assert died["log_level"] == "error"
    assert died["exc_info"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_zero(tmp_path: Path, identity: Identity, number: signal.Signals) -> None:
    structlog.reset_defaults()
    settings = AgentSettings(state_dir=tmp_path / "state")
    started = threading.Event()

    class SignallingBackend(FakeBackend):
        async def list(self) -> Sequence[Observed]:
            if not started.is_set():
                started.set()
                asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
            return await super().list()

    with capture_logs() as logs:
        assert run_process(settings, identity, _factory(SignallingBackend)) == 0
    assert started.is_set()
    assert [entry["event"] for entry in logs if entry["event"].startswith("agent_")] == [
        "agent_started",
        "agent_stopped",
    ]


def test_a_state_folder_that_takes_no_database_is_an_error_in_words(tmp_path: Path, identity: Identity) -> None:
    structlog.reset_defaults()
    settings = AgentSettings(state_dir=tmp_path / "state")
    settings.database_file.mkdir()
    with capture_logs() as logs:
        assert run_process(settings, identity, _factory(FakeBackend)) == 1
    (entry,) = [entry for entry in logs if entry["event"] == "database_not_usable"]
    assert str(settings.database_file) in entry["error"]


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.main", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_nonsense_in_the_settings_is_told_in_one_line(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "state/agent.toml").write_text("poll_interval = 'often'\n")
    done = _command("run", "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert done.stderr.startswith("longshore-edge-agent: poll_interval = 'often': expected a number of seconds")
    assert len(done.stderr.splitlines()) == 1


def test_help_shows_the_commands_with_examples_and_version_is_told() -> None:
    told = _command("--help")
    assert told.returncode == 0
    assert "longshore-edge-agent enroll TOKEN" in told.stdout
    assert _command("--version").stdout.startswith("longshore-edge-agent ")
    assert _command("fly").returncode == 2


@pytest.mark.parametrize("command", ["--version", "status"])
def test_only_run_takes_the_heavy_libraries_along(tmp_path: Path, identity: Identity, command: str) -> None:
    arguments = [command] if command.startswith("--") else [command, "--state-dir", str(tmp_path / "state")]
    program = (
        "import sys\n"
        "from edge_agent.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'grpc', 'paho', 'podman', 'cryptography', 'rich', 'structlog'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
