"""What an agent knows about its machine, from /proc and uname."""

import os
from pathlib import Path

from longshore.v1 import device_pb2

# Machine names of uname(2) -> architecture names of Go and OCI; arm variants are part of the platform, not of the name.
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}

# Architecture -> target profile of a machine without an accelerator.
PROFILES = {"amd64": "x86-cpu", "arm64": "arm64-cpu", "arm": "armv7-cpu"}


def likely_profile(architecture: str) -> str:
    """The target profile to propose for a machine of which nothing else is known; empty where there is none."""
    return PROFILES.get(architecture, "")


def device_facts(agent_version: str, backend: str = "", root: Path = Path("/")) -> device_pb2.DeviceFacts:
    """Facts of the machine whose file system starts at `root`; what cannot be read is left empty or 0."""
    names = os.uname()
    return device_pb2.DeviceFacts(
        architecture=ARCHITECTURES.get(names.machine, names.machine),
        os=_os_name(root),
        kernel=names.release,
        cpus=os.cpu_count() or 0,
        memory_bytes=_memory_bytes(root),
        agent_version=agent_version,
        backend=backend,
    )


def _memory_bytes(root: Path) -> int:
    """MemTotal of proc(5), which counts in KiB."""
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemTotal" and (words := rest.split()) and words[0].isdigit():
            return int(words[0]) * 1024
    return 0


def _os_name(root: Path) -> str:
    """PRETTY_NAME of os-release(5), "linux" where there is none."""
    for line in _lines(root / "etc/os-release"):
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return "linux"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
