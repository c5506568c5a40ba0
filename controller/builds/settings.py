"""What an operator can set about building."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuilderSettings:
    # Where bootstrapped bases are kept; several builders of one machine may share it. None: in the builder's folder.
    base_cache: Path | None = None
    # Where packages of bootstrapped bases come from: "http://mirror/debian". Empty: the distribution's own.
    bootstrap_mirror: str = ""
    # Certificates that build steps trust, PEM. None: what this machine trusts.
    ca_bundle: Path | None = None
    # Seconds that a registry may take to answer before it counts as unreachable.
    registry_timeout: float = 5.0
    # Registries (host:port) from which bases may be taken, besides ours and what target profiles name; empty: any.
    base_registries: tuple[str, ...] = ()
    # Seconds for which an unreachable registry is not asked again.
    unreachable_memory: float = 60.0
    # "overlay"; "vfs" where the file system can carry no overlay.
    storage_driver: str = "overlay"
    # What steps see of the network, as `podman build --network` takes it.
    network: str = "host"
    # The program uv, used for Python packages during a build. None: the one installed beside the controller.
    uv: Path | None = None
