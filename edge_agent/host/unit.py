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


EDGE_AGENT = AgentKind(
    "longshore-edge-agent",
    "Longshore edge agent",
    Path("/var/lib/longshore-agent"),
    """\
# No namespaces of its own: Podman runs below the agent, and settings such as ProtectHome= or PrivateTmp= would give the
# service mounts of its own, so that after a restart it could not see those of the containers it left running. A system
# call or device filter would be inherited by every container.
""",
    ("UMask=0077", "LockPersonality=yes", "RestrictSUIDSGID=no", "OOMScoreAdjust=-500"),
)

BAREMETAL_AGENT = AgentKind(
    "longshore-baremetal-agent",
    "Longshore bare-metal agent",
    Path("/var/lib/longshore-baremetal-agent"),
    """\
# No namespaces of its own: it makes those of its workloads, installs packages where it may, and finds its workloads'
# processes again after a restart.
""",
    ("UMask=0077", "LockPersonality=yes", "OOMScoreAdjust=-500"),
)


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
