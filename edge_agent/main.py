"""The `longshore-edge-agent` command: the agent that runs containers, with Podman."""

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


def _podman_url_allowed(url: str) -> str:
    known = url == "" or url.startswith(("unix://", "http+unix://", "tcp://"))
    return "" if known else "an address such as unix:///run/podman/podman.sock"


PODMAN_URL = Option(
    "podman_url", "", "address of a running Podman service; empty: the agent starts one on demand", _podman_url_allowed
)


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
        url=settings.own[PODMAN_URL.name] or None,
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
    kind=KIND,
    runs_with="with Podman",
    artifacts="images",
    backend=_backend,
    examine=_examine,
    options=[PODMAN_URL],
)


if __name__ == "__main__":
    sys.exit(main())
