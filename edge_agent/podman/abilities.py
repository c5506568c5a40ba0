"""What Podman can do on this host: asked of it once, since limits depend on control groups and on who runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.runtime.backend import Capabilities
from edge_agent.runtime.model import ArtifactKind


@dataclass(frozen=True)
class Abilities:
    """`store` is where Podman keeps images."""

    capabilities: Capabilities
    store: Path


def abilities(info: Mapping[str, Any]) -> Abilities:
    """From the answer of `GET info`."""
    host = info["host"]
    version = str(host.get("cgroupVersion") or "v1")
    controllers = set(host.get("cgroupControllers") or ())
    if (host.get("security") or {}).get("rootless") and version == "v1":
        # Without root limits are ignored there, with no more than a warning.
        controllers = set()
    limits = bool(controllers & {"cpu", "memory", "pids", "cpuset"})
    return Abilities(
        Capabilities(
            artifacts=frozenset({ArtifactKind.IMAGE}),
            exec=True,
            tty=True,
            stats=True,
            mounts=True,
            volumes=True,
            project_volumes=True,
            secrets=True,
            devices=True,
            cpu_limit="cpu" in controllers,
            memory_limit="memory" in controllers,
            pids_limit="pids" in controllers,
            shared_memory_limit=True,
            cpu_set="cpuset" in controllers,
            limits_by=f"cgroup-{version}" if limits else "",
            isolation="container",
        ),
        Path(info["store"]["graphRoot"]),
    )


# What is said of Podman before it has answered.
UNKNOWN = Capabilities(artifacts=frozenset({ArtifactKind.IMAGE}), isolation="container")
