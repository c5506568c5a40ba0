"""Tells Podman by which authority a registry's certificate is verified (containers-certs.d(5))."""

import os
from pathlib import Path

SYSTEM_FOLDER = Path("/etc/containers/certs.d")
PER_HOME = Path(".config/containers/certs.d")
FILE_NAME = "longshore.crt"


def certs_folder(own_home: Path | None) -> Path:
    """Below the service's own home where it has one, so that nothing outside the agent's folder is written; the user's
    home without root; /etc only for a service that others run."""
    if os.getuid() != 0:
        return Path.home() / PER_HOME
    return own_home / PER_HOME if own_home else SYSTEM_FOLDER


def trust(registry: str, authority: Path, folder: Path) -> None:
    """Afterwards Podman verifies `registry` (host:port) by the certificates in `authority`, as they are now."""
    target = folder / registry / FILE_NAME
    content = authority.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(target)
