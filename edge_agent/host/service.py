"""Installs an agent as a service of systemd, and takes it off again."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from edge_agent.errors import UserError
from edge_agent.host.unit import UNIT_FOLDER, AgentKind, unit_text
from edge_agent.runtime.files import write_durably
from edge_agent.runtime.identity import LOCK_NAME, is_in_use

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
    if is_in_use(state_dir) and not _serves(kind, state_dir):
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
    while not _serves(kind, state_dir):
        if state(kind) == "failed" or time.monotonic() > deadline:
            raise ServiceError(f"the service does not come up ({state(kind)}); see `journalctl -u {kind.unit}`")
        time.sleep(0.1)


def _serves(kind: AgentKind, state_dir: Path) -> bool:
    """Whether the service's own process holds the state folder."""
    pid = _systemctl("show", "--property", "MainPID", "--value", kind.unit).strip()
    try:
        inode = (state_dir / LOCK_NAME).stat().st_ino
    except FileNotFoundError:
        return False
    return holds_lock(Path("/proc/locks").read_text(), int(pid or 0), inode)


def holds_lock(locks: str, pid: int, inode: int) -> bool:
    """Whether the process holds a lock of a whole file, by the text of /proc/locks (proc(5), flock(2))."""
    lines = (line.split() for line in locks.splitlines())
    return any(
        each[1] == "FLOCK" and each[4] == str(pid) and each[5].rpartition(":")[2] == str(inode) for each in lines
    )
