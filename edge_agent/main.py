"""The `longshore-edge-agent` command: the agent that runs containers, with Podman."""

import sys
from collections.abc import Sequence
from pathlib import Path

from edge_agent.host.commands import run_command
from edge_agent.host.findings import Finding
from edge_agent.host.program import Credentials, Program
from edge_agent.host.unit import EDGE_AGENT
from edge_agent.runtime.backend import DeployBackend
from edge_agent.runtime.identity import Identity
from edge_agent.runtime.settings import AgentSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 where what was asked for is so, 1 where it is not, 2 for a malformed command line."""
    return run_command(PROGRAM, argv)


def _backend(settings: AgentSettings, identity: Identity, credentials: Credentials) -> DeployBackend:
    from edge_agent.podman.backend import PodmanBackend

    return PodmanBackend(
        owner=identity.owner,
        state_dir=settings.state_dir / "podman",
        credentials=credentials,
        registry_ca=identity.ca_file,
        url=settings.podman_url or None,
    )


async def _examine(folder: Path) -> list[Finding]:
    from edge_agent.podman.backend import PodmanBackend
    from edge_agent.podman.doctor import examine

    backend = PodmanBackend("doctor", folder, _no_credentials, None)
    try:
        return await examine(backend)
    finally:
        await backend.close()


async def _no_credentials() -> tuple[str, str]:
    raise RuntimeError("a doctor fetches nothing")


PROGRAM = Program(
    kind=EDGE_AGENT,
    runs_with="with Podman",
    artifacts="images",
    backend=_backend,
    examine=_examine,
    flags={"--podman-url": {"metavar": "URL", "help": "a running Podman service (one is started on demand)"}},
)


if __name__ == "__main__":
    sys.exit(main())
