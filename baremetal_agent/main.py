"""The `longshore-baremetal-agent` command: the agent that runs bundles, without containers."""

import sys
from collections.abc import Sequence
from pathlib import Path

from edge_agent.host.commands import run_command
from edge_agent.host.findings import Finding
from edge_agent.host.program import Credentials, Program
from edge_agent.host.unit import AgentKind
from edge_agent.runtime.backend import DeployBackend
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import AgentSettings, Option

KIND = AgentKind(
    "longshore-baremetal-agent",
    "Longshore bare-metal agent",
    Path("/var/lib/longshore-baremetal-agent"),
    """\
# No namespaces of its own: it makes those of its workloads, installs packages where it may, and finds its workloads'
# processes again after a restart.
""",
    ("UMask=0077", "LockPersonality=yes", "OOMScoreAdjust=-500"),
)
INSTALL_PACKAGES = Option(
    "install_packages", False, "whether the Debian packages that a bundle needs may be installed, by apt-get"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 where what was asked for is so, 1 where it is not, 2 for a malformed command line."""
    return run_command(PROGRAM, argv)


def _backend(settings: AgentSettings, identity: Identity, credentials: Credentials) -> DeployBackend:
    from baremetal_agent.virtualenv.backend import VirtualenvBackend

    return VirtualenvBackend(
        owner=identity.owner,
        state_dir=settings.state_dir / "virtualenv",
        credentials=credentials,
        registry_ca=identity.ca_file,
        install_packages=settings.own[INSTALL_PACKAGES.name],
    )


async def _examine(folder: Path) -> list[Finding]:
    from baremetal_agent.virtualenv.doctor import examine

    return await examine(folder)


PROGRAM = Program(
    kind=KIND,
    runs_with="in virtual environments, without containers",
    artifacts="bundles",
    backend=_backend,
    examine=_examine,
    options=[INSTALL_PACKAGES],
)


if __name__ == "__main__":
    sys.exit(main())
