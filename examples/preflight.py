"""What the demonstration needs of this machine and does not find, before anything is begun."""

import getpass
import os
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers")
TUN = Path("/dev/net/tun")
SUBORDINATE_IDS = (Path("/etc/subuid"), Path("/etc/subgid"))


def missing() -> str:
    """One sentence with what to do; empty where all is there. Only an ordinary user may lack something."""
    if os.geteuid() == 0:
        return ""
    if not CGROUP_V2.exists():
        return "containers of an ordinary user need cgroup v2, which this machine does not have; run this as root"
    if "XDG_RUNTIME_DIR" not in os.environ:
        return "Podman needs XDG_RUNTIME_DIR; log in as this user (not by su), or run this as root"
    user = getpass.getuser()
    if not all(_has_ids(path, user) for path in SUBORDINATE_IDS):
        ids = "--add-subuids 100000-165535 --add-subgids 100000-165535"
        return f"Podman needs further ids for {user}; as root: usermod {ids} {user}; or run this as root"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"Podman needs {TUN} for the network of containers; as root: chmod 666 {TUN}; or run this as root"
    return ""


def _has_ids(path: Path, user: str) -> bool:
    names = (f"{user}:", f"{os.getuid()}:")
    return path.exists() and any(line.startswith(names) for line in path.read_text().splitlines())
