"""The systemd unit of an agent. systemd.unit(5), systemd.service(5), systemd.exec(5)."""

from dataclasses import dataclass
from pathlib import Path

UNIT_FOLDER = Path("/etc/systemd/system")


@dataclass(frozen=True)
class AgentKind:
    """One of the agents: its program, what it is called, and how it treats what it started."""

    program: str
    title: str
    # Where its state is kept unless somebody says otherwise.
    state_dir: Path
    # What is to be said of sandboxing in the unit; comment lines.
    remark: str = ""
    # Settings of the [Service] section beyond the common ones.
    settings: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        return f"{self.program}.service"


def unit_text(kind: AgentKind, program: Path, state_dir: Path) -> str:
    """The unit that runs `program` on this state folder, from boot on, without waiting for a network."""
    folder = state_dir if " " not in str(state_dir) else f'"{state_dir}"'
    return f"""\
# {kind.title} on a device. Enroll first: {kind.program} enroll TOKEN
[Unit]
Description={kind.title}
# No network is needed to go on with what is stored.
After=network.target
ConditionPathExists={state_dir}/identity.json
StartLimitIntervalSec=0

[Service]
ExecStart={program} run --state-dir {folder}
Restart=always
RestartSec=3
# What the agent started is not the agent's to take along: it runs on while the agent restarts.
KillMode=process
TimeoutStopSec=20
# Without docstrings the agent is 2 MB smaller.
Environment=PYTHONOPTIMIZE=2
{"".join(f"{setting}{chr(10)}" for setting in kind.settings)}{kind.remark}
[Install]
WantedBy=multi-user.target
"""
