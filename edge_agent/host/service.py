"""Installs an agent as a service of systemd, and takes it off again."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from edge_agent.errors import UserError
from edge_agent.host.unit import UNIT_FOLDER, AgentKind, unit_text
from edge_agent.runtime.files import write_durably
from edge_agent.runtime.identity import holder

START_DEADLINE = 30.0
SYSTEMCTL_TIMEOUT = 60.0


class ServiceError(UserError):
    """The service is not as it was asked for; the text says why and what to do."""


def require_systemd() -> None:
    """Raises ServiceError where systemd does not run this machine."""
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        raise ServiceError(
            "systemd does not run this machine; start `run` by what does, and leave what it started running when it "
            "restarts"
        )


def install(kind: AgentKind, state_dir: Path, folder: Path = UNIT_FOLDER) -> None:
    """Afterwards the agent runs as a service, now and after each boot. A second call brings the unit and the program
    that runs up to date; what the agent started goes on.

    Raises ServiceError.
    """
    require_systemd()
    if holder(state_dir) not in (0, _main_pid(kind)):
        raise ServiceError(f"another process works with {state_dir}, maybe a `run` by hand; end it first")
    write_durably(folder / kind.unit, unit_text(kind, _program(kind), state_dir).encode(), 0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", kind.unit)
    _systemctl("restart", kind.unit)
    _await_running(kind, state_dir)


def uninstall(kind: AgentKind, folder: Path = UNIT_FOLDER) -> bool:
    """Afterwards there is no such service; False where there was none. What the agent started runs on."""
    require_systemd()
    path = folder / kind.unit
    if not path.exists():
        return False
    _systemctl("disable", "--now", kind.unit)
    path.unlink()
    _systemctl("daemon-reload")
    return True


def state(kind: AgentKind) -> str:
    """What systemd says of the service, in its own words ("active", "failed"); "not installed" where it has none."""
    if shutil.which("systemctl") is None or not (UNIT_FOLDER / kind.unit).exists():
        return "not installed"
    asked = subprocess.run(
        ["systemctl", "is-active", kind.unit], capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT, check=False
    )
    return asked.stdout.strip() or "unknown"


def _program(kind: AgentKind) -> Path:
    """The command beside the Python that runs this: the one that the person has just called."""
    program = Path(sys.executable).with_name(kind.program)
    if not program.exists():
        raise ServiceError(f"there is no {program}; install Longshore by pip into an environment of its own")
    return program


def _systemctl(*arguments: str) -> str:
    """What it prints. Raises ServiceError."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT, check=True
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or error.stdout.strip()
        raise ServiceError(f"systemctl {' '.join(arguments)} failed: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"systemctl {' '.join(arguments)} does not come back") from error
    return done.stdout


def _await_running(kind: AgentKind, state_dir: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while not (pid := holder(state_dir)) or pid != _main_pid(kind):
        if state(kind) == "failed" or time.monotonic() > deadline:
            raise ServiceError(f"the service does not come up ({state(kind)}); see `journalctl -u {kind.unit}`")
        time.sleep(0.1)


def _main_pid(kind: AgentKind) -> int:
    """0 where the service does not run."""
    return int(_systemctl("show", "--property", "MainPID", "--value", kind.unit).strip() or 0)
